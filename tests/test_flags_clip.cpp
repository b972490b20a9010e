// The clipped loss built with unusual compiler flags: plain, -ffast-math, -fno-exceptions -fno-rtti.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include "support/vectors.hpp"

namespace {

// The arrays of one case, and the loss over them with the gradient in `gradient`.
template <class T>
struct clip_case {
    std::vector<std::int64_t> cu;
    std::vector<unsigned char> mask;
    std::vector<T> logp, logp_old, advantage, gradient;
    grpo::clipped term;
    grpo::aggregation over = grpo::aggregation::token_mean();

    explicit clip_case(const vectors::test_case& c)
        : cu(c.input<std::int64_t>("cu_seqlens")),
          mask(c.input<unsigned char>("mask")),
          logp(c.input<T>("logp")),
          logp_old(c.input<T>("logp_old")),
          advantage(c.input<T>("advantage")),
          gradient(logp.size(), T(77)),
          term{.low = c.number("low"), .high = c.number("high")} {
        if (c.text("aggregation") == "sequence_mean_token_mean") {
            over = grpo::aggregation::sequence_mean(c.flag("count_empty"));
        }
    }

    double loss(grpo::loss_result& r) {
        const auto shape = grpo::ragged(cu).where(mask);
        const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(logp_old),
                            grpo::advantage(grpo::by_sequence(advantage)));
        const grpo::objective objective{term, over};
        const double n = objective.over.denominator(grpo::count(shape));
        const grpo::problem p = grpo::try_accumulate(r, grpo::serial{}, objective, b, n, grpo::d_logp(gradient));
        REQUIRE(std::string(p.text) == "");
        return r.loss(n);
    }
    double loss() {
        grpo::loss_result r;
        return loss(r);
    }
};

// The cases that need nothing but clip, its usual bound and an advantage for each sequence.
std::vector<vectors::test_case> simple_cases() {
    std::vector<vectors::test_case> out;
    for (const vectors::test_case& c : vectors::load("policy")) {
        const bool known = c.method() == "clip" && c.has("advantage") && c.number("log_ratio_bound") == 20.0 &&
                           c.text("bound_gradient") == "zero";
        const std::string over = known ? c.text("aggregation") : "";
        if (over == "token_mean" || over == "sequence_mean_token_mean") out.push_back(c);
    }
    return out;
}

TEST_CASE_TEMPLATE("R1.44 clip agrees with the reference under these compiler flags", T, float, double) {
    const std::vector<vectors::test_case> cases = simple_cases();
    REQUIRE(cases.size() >= 5);
    for (const vectors::test_case& c : cases) {
        INFO(c.id());
        clip_case<T> x(c);
        CHECK(vectors::close(x.loss(), c.value(), c.tolerance<T>()));
        CHECK(vectors::difference(x.gradient, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
    }
}

TEST_CASE_TEMPLATE("R1.12 R1.44 masked positions may hold anything under these compiler flags", T, float, double) {
    using limits = std::numeric_limits<T>;
    for (const T poison : {limits::quiet_NaN(), limits::infinity(), -limits::infinity(), T(1e30)}) {
        for (const vectors::test_case& c : simple_cases()) {
            INFO(c.id());
            clip_case<T> x(c);
            for (std::size_t i = 0; i < x.mask.size(); ++i) {
                if (x.mask[i] == 0) x.logp[i] = x.logp_old[i] = poison;
            }
            CHECK(vectors::close(x.loss(), c.value(), c.tolerance<T>()));
            CHECK(vectors::difference(x.gradient, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
        }
    }
}

TEST_CASE_TEMPLATE("R1.16 R1.44 an active non-finite token is counted under these compiler flags", T, float, double) {
    using limits = std::numeric_limits<T>;
    for (const T bad : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()}) {
        for (const vectors::test_case& c : simple_cases()) {
            INFO(c.id());
            clip_case<T> x(c);
            const std::int64_t last = x.cu.back() - 1;
            if (x.mask[static_cast<std::size_t>(last)] == 0) continue;
            x.logp[static_cast<std::size_t>(last)] = bad;
            grpo::loss_result r;
            x.loss(r);
            CHECK(r.nonfinite == 1);
            CHECK(r.first_nonfinite == last);
            // The sequences before the last one keep their gradient.
            const std::vector<double> expected = c.expected<double>("gradient/logp");
            const auto whole = static_cast<std::ptrdiff_t>(x.cu[x.cu.size() - 2]);
            CHECK(vectors::difference(std::vector<T>(x.gradient.begin(), x.gradient.begin() + whole),
                                      std::vector<double>(expected.begin(), expected.begin() + whole),
                                      c.tolerance<T>()) == "");
        }
    }
}

TEST_CASE("a caller's mistake is a returned sentence under these compiler flags") {
    clip_case<double> x(simple_cases().front());
    x.logp_old.pop_back();
    grpo::loss_result r;
    const grpo::batch b(grpo::ragged(x.cu), grpo::logp(x.logp), grpo::logp_old(x.logp_old),
                        grpo::advantage(grpo::by_sequence(x.advantage)));
    const grpo::problem p = grpo::try_accumulate(r, grpo::serial{}, grpo::objective{x.term, x.over}, b, 1.0,
                                                 grpo::d_logp(x.gradient));
    CHECK(std::string(p.text).find("logp_old has 9 entries, but the batch has 10 positions") != std::string::npos);
    CHECK(x.gradient == std::vector<double>(10, 77.0));
}

}  // namespace
