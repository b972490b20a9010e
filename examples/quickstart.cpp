// From rewards to a gradient for every token: two prompts with three responses each, packed one after the other.
#include <cstdint>
#include <cstdio>
#include <vector>

#include <grpo/grpo.hpp>

int main() {
    // Six responses of 3, 2, 4, 2, 3 and 1 tokens, and what they earned.
    const std::vector<std::int64_t> cu_seqlens{0, 3, 5, 9, 11, 14, 15};
    const std::vector<double> reward{1.0, 0.0, 0.0, 1.0, 0.5, 0.0};

    // Log-probabilities of the tokens: under the policy being trained, the one that sampled them, and the reference.
    const std::vector<double> logp{-0.9, -1.2, -0.4, -2.0, -0.7, -1.1, -0.3, -0.8,
                                   -1.6, -0.5, -1.9, -1.0, -0.6, -0.2, -1.3};
    const std::vector<double> logp_old{-1.0, -1.1, -0.9, -2.1, -0.7, -1.5, -0.3, -0.7,
                                       -1.6, -0.6, -1.8, -1.0, -0.7, -0.2, -1.1};
    const std::vector<double> logp_ref{-1.1, -1.0, -0.8, -2.0, -0.8, -1.4, -0.4, -0.7,
                                       -1.5, -0.6, -1.7, -1.1, -0.7, -0.3, -1.1};

    // Advantages: each reward against the other responses to the same prompt.
    std::vector<double> advantage(6);
    grpo::group_normalised(grpo::padded(2, 3), reward, advantage);

    // The loss: the clipped ratio plus a KL penalty, every token weighing the same.
    const auto tokens = grpo::ragged(cu_seqlens);
    const grpo::objective loss{grpo::clipped{.low = 0.2, .high = 0.28} + 0.04 * grpo::kl{},
                               grpo::aggregation::token_mean()};
    const grpo::batch batch(tokens, grpo::logp(logp), grpo::logp_old(logp_old), grpo::logp_ref(logp_ref),
                            grpo::advantage(grpo::by_sequence(advantage)));

    // Value and exact gradient in one pass. The denominator is an argument: over several micro-batches or ranks, pass
    // the one of the whole batch, and the parts add up.
    std::vector<double> gradient(logp.size());
    const double denominator = loss.over.denominator(grpo::count(tokens));
    const auto result = grpo::evaluate(grpo::serial{}, loss.diagnosed(), batch, denominator, grpo::d_logp(gradient));

    std::printf("response  reward  advantage   d loss / d logp of each token\n");
    for (std::int64_t s = 0; s < tokens.rows(); ++s) {
        std::printf("%8lld  %6.2f  %9.4f  ", static_cast<long long>(s), reward[static_cast<std::size_t>(s)],
                    advantage[static_cast<std::size_t>(s)]);
        for (std::int64_t i = tokens.begin(s); i < tokens.end(s); ++i) {
            std::printf(" %8.5f", gradient[static_cast<std::size_t>(i)]);
        }
        std::printf("\n");
    }
    std::printf("\nloss %.6f over %lld tokens, %.0f of them clipped\n", result.loss(denominator),
                static_cast<long long>(result.count.tokens), result.metrics.clipped_low + result.metrics.clipped_high);
}
