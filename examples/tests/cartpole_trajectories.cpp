// Steps the environments of examples/cartpole for cartpole_trajectories.py. A line of input is a task, four numbers of
// a state and an action; the line of output is the next state, the reward, whether the task ended, and what is
// observed.
#include <cstdio>
#include <string>

#include <fmt/format.h>

#include "cartpole/dynamics.hpp"

namespace {

template <class Dynamics>
void step(control::state s, int action) {
    float seen[6];
    const control::outcome o = Dynamics::step(s, action);
    Dynamics::observe(s, seen);
    fmt::print("{} {} {} {} {} {}", s[0], s[1], s[2], s[3], o.reward, o.terminated ? 1 : 0);
    for (int i = 0; i < Dynamics::about.observations; ++i) fmt::print(" {}", seen[i]);
    fmt::print("\n");
}

}  // namespace

int main() {
    char name[16];
    control::state s{};
    int action = 0;
    while (std::scanf("%15s %lf %lf %lf %lf %d", name, &s[0], &s[1], &s[2], &s[3], &action) == 6) {
        const bool cart = std::string(name) == control::cart_pole::about.name;
        cart ? step<control::cart_pole>(s, action) : step<control::acrobot>(s, action);
    }
}
