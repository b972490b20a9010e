// The head on threads gives the same bits as the executor that they wrap, whatever their number.
#include <cstring>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>
#include <grpo/exec/threads.hpp>
#include <grpo/grpo.hpp>

#include <support/head_loss_cases.hpp>

namespace {

using head_loss_cases::world;

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T, class Inner, class Term>
void check(const Inner& inner, const Term& term) {
    const auto w = world<T, float>({9, 0, 14, 1, 30, 7, 21}, 331, 333, 12, 0.7);
    const auto loss = grpo::objective{term, grpo::aggregation::sequence_mean()}.diagnosed();
    const auto expected = head_loss_cases::evaluate<T>(inner, loss, w);
    for (const int n : {1, 2, 3, 7}) {
        const grpo::threads<Inner> pool(n);
        INFO(n, " threads");
        const auto o = head_loss_cases::evaluate<T>(pool, loss, w);
        CHECK(same_bits(o.gradient, expected.gradient));
        CHECK(same_bits(o.logp, expected.logp));
        CHECK(same_bits(o.entropy, expected.entropy));
        CHECK(random_batch::same_bits(o.result.sum, expected.result.sum));
        CHECK(random_batch::same_bits(o.result.weight, expected.result.weight));
        CHECK(std::memcmp(&o.result.metrics, &expected.result.metrics, sizeof o.result.metrics) == 0);
    }
}

TEST_CASE_TEMPLATE("any number of threads gives serial's bits of a loss from logits", T, float, grpo::bfloat16) {
    check<T>(grpo::serial{}, grpo::clipped{} + 0.3 * grpo::exact_kl{} + 0.01 * grpo::entropy_bonus{});
}
TEST_CASE_TEMPLATE("any number of threads gives simd's bits of a loss from logits", T, float, grpo::bfloat16) {
    check<T>(grpo::simd{}, grpo::clipped{} + 0.04 * grpo::kl{});  // whose probabilities lie in each worker's own memory
}

TEST_CASE("any number of threads gives the same log-probabilities and gradients of logits") {
    const auto w = world<float, float>({40, 23}, 257, 260, 13);
    const auto n = w.a.tokens();
    const auto run = [&](const auto& exec, std::vector<float>& logp, std::vector<float>& entropy, std::vector<float>& g) {
        logp.assign(n, 9), entropy.assign(n, 9), g.assign(w.z.size(), 9);
        grpo::token_logp(exec, w.logits(), w.target, w.options, grpo::view(logp), grpo::view(entropy));
        grpo::d_logits(exec, w.logits(), w.target, w.options, grpo::view<const float>(logp), grpo::view<const float>(entropy),
                       grpo::view(g));
    };
    std::vector<float> logp, entropy, g, l, h, d;
    run(grpo::serial{}, logp, entropy, g);
    for (const int size : {1, 2, 3, 7}) {
        run(grpo::threads<>(size), l, h, d);
        CHECK((same_bits(l, logp) && same_bits(h, entropy) && same_bits(d, g)));
    }
}

}  // namespace
