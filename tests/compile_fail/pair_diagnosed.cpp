// expect: diagnosed() looks at tokens
#include <vector>

#include <grpo/grpo.hpp>
#include <grpo/preference.hpp>

int main() {
    const std::vector<float> x(2);
    const grpo::objective loss{grpo::contrastive{}, grpo::aggregation::token_mean()};
    (void)grpo::evaluate(grpo::serial{}, loss.diagnosed(),
                         grpo::batch(grpo::padded(1, 2), grpo::chosen(x), grpo::rejected(x)), 2.0);
}
