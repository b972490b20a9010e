// The bodies of the head on a block of threads: serial's results, and no data race (run under ThreadSanitizer).
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/head_loss_cases.hpp>
#include <support/lanes.hpp>
#include <support/vectors.hpp>

namespace {

using head_loss_cases::world;

world<double> rows() { return world<double>({3, 0, 7, 1}, 37, 39, 14, 0.7); }

TEST_CASE("log-probability, entropy, full KL and their gradients on a block of lanes are serial's") {
    const auto w = rows();
    const std::size_t n = w.a.tokens();
    struct outputs {
        std::vector<double> logp, entropy, squares, lse, kl, gradient, of_kl;
    };
    const auto run = [&](const auto& exec) {
        const std::vector<double> one(n, 9.0), all(w.z.size(), 9.0);
        outputs o{one, one, one, one, one, all, all};
        const auto in = w.logits().where(w.a.mask);
        grpo::token_logp(exec, in, w.target, w.options,
                         grpo::softmax_outputs<double>{grpo::view(o.logp), grpo::view(o.entropy), grpo::view(o.squares),
                                                       grpo::view(o.lse)});
        grpo::d_logits(exec, in, w.target, w.options, grpo::view<const double>(o.logp), grpo::view<const double>(o.entropy),
                       grpo::view(o.gradient));
        grpo::full_kl(exec, in, w.reference(), w.options, grpo::view(o.kl), grpo::view<const double>(o.logp),
                      grpo::view(o.of_kl));
        return o;
    };
    const outputs serial = run(grpo::serial{}), block = run(lanes<4>{});
    CHECK(vectors::difference(block.logp, serial.logp, 1e-13) == "");
    CHECK(vectors::difference(block.entropy, serial.entropy, 1e-13) == "");
    CHECK(vectors::difference(block.squares, serial.squares, 1e-13) == "");
    CHECK(vectors::difference(block.lse, serial.lse, 1e-13) == "");
    CHECK(vectors::difference(block.kl, serial.kl, 1e-13) == "");
    CHECK(vectors::difference(block.gradient, serial.gradient, 1e-13) == "");
    CHECK(vectors::difference(block.of_kl, serial.of_kl, 1e-13) == "");
}

template <class Term>
void check(const Term& term) {
    const auto w = rows();
    const grpo::objective loss{term, grpo::aggregation::token_mean()};
    const auto serial = head_loss_cases::evaluate<double>(grpo::serial{}, loss, w);
    const auto block = head_loss_cases::evaluate<double>(lanes<4>{}, loss, w);
    CHECK(vectors::close(block.result.sum, serial.result.sum, 1e-13));
    CHECK(vectors::difference(block.logp, serial.logp, 1e-13) == "");
    CHECK(vectors::difference(block.gradient, serial.gradient, 1e-13) == "");
    auto place = w;
    CHECK(vectors::close(head_loss_cases::evaluate_in_place(lanes<4>{}, loss, place).sum, serial.result.sum, 1e-13));
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        for (std::int64_t c = 0; c < w.vocabulary; ++c) {
            if (!vectors::close(place.z[w.place(i, c)], serial.gradient[w.place(i, c)], 1e-13)) FAIL_CHECK(i, " ", c);
        }
    }
}

TEST_CASE("a loss from logits on a block of lanes is serial's, in place too") {
    check(grpo::clipped{} + 0.04 * grpo::kl{});
    check(grpo::clipped{} + 0.3 * grpo::exact_kl{} + 0.01 * grpo::entropy_bonus{});
    check(grpo::gspo{.low = 0.1, .high = 0.1});
}

}  // namespace
