// expect: this term needs entropy: add grpo::entropy(...) to the batch, or drop the entropy bonus
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::logp_old(x), grpo::advantage(x));
    const auto term = grpo::clipped{} + 0.01 * grpo::entropy_bonus{};
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()}, b, 2.0, grpo::d_logp(g));
}
