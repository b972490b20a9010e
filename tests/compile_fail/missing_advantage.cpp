// expect: this term needs advantage: add grpo::advantage(by_sequence(...)) or grpo::advantage(by_token(...))
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::logp_old(x));
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()}, b, 2.0,
                         grpo::d_logp(g));
}
