// Likelihood losses against the reference vectors: SFT (S01), DFT (S02), RFT and Online RFT (S03).
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include "support/loss_cases.hpp"

namespace {

using vectors::test_case;

// The mask of a case, less the outputs that do not count if the expectation runs over the correct ones alone.
std::vector<std::uint8_t> counted(const test_case& c, const std::vector<std::int64_t>& cu) {
    std::vector<std::uint8_t> mask = c.input<std::uint8_t>("mask");
    if (!c.has_parameter("denominator_over") || c.text("denominator_over") == "all") return mask;
    REQUIRE(c.text("denominator_over") == "correct");
    const auto correct = c.input<int>("correct");
    for (std::size_t s = 0; s + 1 < cu.size(); ++s) {
        for (std::int64_t t = cu[s]; t < cu[s + 1]; ++t) {
            if (correct[s] == 0) mask[static_cast<std::size_t>(t)] = 0;
        }
    }
    return mask;
}

// Sequences in the denominator: those that the expectation runs over. A correct output without tokens is one of them if
// empty rows count; the shape alone cannot know.
double denominator_of(const test_case& c, const grpo::aggregation& over, const grpo::totals& all) {
    if (c.text("aggregation") == "token_mean_global") return c.number("denominator");
    grpo::totals t = all;
    if (c.has_parameter("denominator_over") && c.text("denominator_over") == "correct") {
        t.sequences = 0;
        for (const int k : c.input<int>("correct")) t.sequences += k != 0 ? 1 : 0;
    }
    return over.denominator(t);
}

template <class T>
void run_case(const test_case& c) {
    const vectors::layout layout(c);
    const auto logp = c.input<T>("logp");
    const auto cu = c.input<std::int64_t>("cu_seqlens");
    const std::vector<std::uint8_t> mask = counted(c, cu);
    const auto shape = grpo::ragged(cu).where(mask);
    const std::vector<T> label = c.has("correct") ? c.input<T>("correct") : std::vector<T>(cu.size() - 1);
    const auto batch = grpo::batch(shape, grpo::logp(logp), grpo::label(grpo::by_sequence(label)));
    const double n = denominator_of(c, layout.over(), grpo::count(shape));
    std::vector<T> d(logp.size(), T(9));
    const auto with = [&](const auto& term) {
        const auto got =
            grpo::evaluate(grpo::serial{}, grpo::objective{term, layout.over()}, batch, n, grpo::d_logp(d));
        CHECK(vectors::close(got.loss(n), c.value(), c.tolerance<T>()));
        CHECK(vectors::difference(d, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
    };
    const std::string m = c.method();
    if (m == "sft") with(grpo::nll{});
    else if (m == "dft") with(grpo::dft{});
    else if (m == "rft") with(grpo::rft{});
    else if (m == "online_rft") with(grpo::online_rft{});
    else FAIL_CHECK("no test for method " << m);
}

template <class T>
void run_all() {
    for (const test_case& c : vectors::load("supervised")) {
        INFO(c.id());
        run_case<T>(c);
    }
}

}  // namespace

TEST_CASE("S01-S03 value and gradient in double") { run_all<double>(); }
TEST_CASE("S01-S03 value and gradient in float") { run_all<float>(); }

TEST_CASE("RFT does not read the log-probabilities of incorrect outputs into a result") {
    const std::vector<double> logp{-1.0, -2.0, -3.0};
    const std::vector<double> label{0.0, 1.0, 1.0};
    std::vector<double> d(3);
    const auto b = grpo::batch(grpo::padded(1, 3), grpo::logp(logp), grpo::label(label));
    const grpo::objective loss{grpo::rft{}, grpo::aggregation::token_mean()};
    const auto got = grpo::evaluate(grpo::serial{}, loss, b, 2.0, grpo::d_logp(d));
    CHECK(got.loss(2.0) == 2.5);
    CHECK(d == std::vector<double>{0, -0.5, -0.5});
}
