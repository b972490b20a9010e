// expect: a batch holds named inputs
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), x, grpo::logp_old(x), grpo::advantage(x));
    (void)b;
    (void)g;
}
