// expect: a gradient was asked for an input that the batch does not have
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::logp_old(x), grpo::advantage(x));
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()}, b, 2.0,
                         grpo::d_entropy(g));
}
