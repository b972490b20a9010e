// expect: logp, entropy and full_kl come from the logits: leave them out of the batch
#include <vector>

#include <grpo/grpo.hpp>
#include <grpo/head.hpp>

int main() {
    const std::vector<float> x(2), z(6);
    std::vector<float> g(6);
    std::vector<std::byte> memory(4096);
    const grpo::batch b(grpo::padded(1, 2), grpo::logp(x), grpo::logp_old(x), grpo::advantage(x));
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    (void)grpo::evaluate_logits(grpo::serial{}, loss, grpo::logits(z, 2, 3), std::vector<int>{0, 1}, {}, b, 2.0,
                                grpo::view(g), grpo::view(memory));
}
