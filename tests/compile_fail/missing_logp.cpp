// expect: this term needs logp: add grpo::logp(...) to the batch
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp_old(x), grpo::advantage(x));
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()}, b, 2.0);
    (void)g;
}
