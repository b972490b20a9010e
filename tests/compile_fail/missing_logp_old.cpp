// expect: this term needs logp_old: add grpo::logp_old(...) to the batch, or use on_policy, whose ratio is 1
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::advantage(x));
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()}, b, 2.0,
                         grpo::d_logp(g));
}
