// expect: this term needs values, values_old and returns (a critic loss does)
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    const std::vector<float> x(2);
    std::vector<float> g(2);
    const grpo::batch b(grpo::padded(1, 2), grpo::values(x), grpo::returns(x));
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::value_loss{}, grpo::aggregation::token_mean()}, b, 2.0,
                         grpo::d_values(g));
}
