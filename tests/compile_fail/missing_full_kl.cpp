// expect: this term needs full_kl: evaluate it from logits with a reference (evaluate_logits), or add
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::logp_old(x), grpo::advantage(x));
    const auto term = grpo::clipped{} + 0.04 * grpo::exact_kl{};
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()}, b, 2.0, grpo::d_logp(g));
}
