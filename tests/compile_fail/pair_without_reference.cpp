// expect: this term needs ref_chosen and ref_rejected
#include <vector>

#include <grpo/grpo.hpp>
#include <grpo/preference.hpp>

int main() {
    const std::vector<float> x(2);
    (void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::dpo{}, grpo::aggregation::token_mean()},
                         grpo::batch(grpo::padded(1, 2), grpo::chosen(x), grpo::rejected(x)), 2.0);
}
