// expect: this term needs weight: add grpo::weight(...) (see correction.hpp), or drop rollout_weighted
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::logp_old(x), grpo::advantage(x));
    const auto term = grpo::rollout_weighted{} * grpo::clipped{};
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()}, b, 2.0, grpo::d_logp(g));
}
