// The unified paradigm (arXiv 2402.03300 §5.2, appendix A): gradient coefficients of SFT, RFT, Online RFT, DPO, PPO and GRPO
// through one function, against the reference vectors; and the gradient that they make up.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>
#include <grpo/paradigm.hpp>
#include <grpo/preference.hpp>

#include "support/vectors.hpp"

namespace {

using vectors::test_case;

template <class T>
struct rollouts {
    std::vector<T> logp, logp_old, logp_ref, label, advantage;
    std::vector<std::int64_t> cu;
    std::vector<std::uint8_t> mask;

    explicit rollouts(const test_case& c)
        : logp(c.input<T>("logp")), cu(c.input<std::int64_t>("cu_seqlens")), mask(c.input<std::uint8_t>("mask")) {
        if (c.has("logp_old")) logp_old = c.input<T>("logp_old");
        if (c.has("logp_ref")) logp_ref = c.input<T>("logp_ref");
        if (c.has("correct")) label = to_tokens(c.input<T>("correct"));
        if (c.has("advantage")) advantage = to_tokens(c.input<T>("advantage"));
        if (c.has("advantage_token")) advantage = c.input<T>("advantage_token");
    }
    std::vector<T> to_tokens(const std::vector<T>& by_row) const {
        std::vector<T> out(logp.size());
        for (std::size_t s = 0; s + 1 < cu.size(); ++s) {
            for (std::int64_t t = cu[s]; t < cu[s + 1]; ++t) out[static_cast<std::size_t>(t)] = by_row[s];
        }
        return out;
    }
    auto shape() const { return grpo::ragged(cu).where(mask); }
};

// The coefficient, and the objective's value and gradient: mean over outputs of the mean over tokens.
template <class T, class Term>
void check_tokens(const test_case& c, const Term& term) {
    const rollouts<T> x(c);
    const auto shape = x.shape();
    const auto b = grpo::batch(shape, grpo::logp(x.logp), grpo::logp_old(x.logp_old), grpo::logp_ref(x.logp_ref),
                               grpo::label(x.label), grpo::advantage(x.advantage));
    std::vector<T> coefficient(x.logp.size(), T(9));
    grpo::gradient_coefficient(grpo::serial{}, term, b, grpo::d_logp(coefficient));
    CHECK(vectors::difference(coefficient, c.expected<double>("coefficient"), c.tolerance<T>()) == "");

    const grpo::objective loss{term, grpo::aggregation::sequence_mean(true)};
    const double n = loss.over.denominator(grpo::count(shape));
    std::vector<T> d(x.logp.size(), T(9));
    const auto got = grpo::evaluate(grpo::serial{}, loss, b, n, grpo::d_logp(d));
    CHECK(vectors::close(got.loss(n), c.value(), c.tolerance<T>()));
    CHECK(vectors::difference(d, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
}

// Rows 2k are chosen, 2k + 1 rejected.
template <class T>
void split(const std::vector<T>& rows, std::vector<T>& even, std::vector<T>& odd) {
    even.clear();
    odd.clear();
    for (std::size_t i = 0; i < rows.size(); ++i) (i % 2 == 0 ? even : odd).push_back(rows[i]);
}
template <class T>
std::vector<T> woven(const std::vector<T>& even, const std::vector<T>& odd) {
    std::vector<T> rows;
    for (std::size_t i = 0; i < even.size(); ++i) {
        rows.push_back(even[i]);
        rows.push_back(odd[i]);
    }
    return rows;
}

template <class T>
void check_dpo(const test_case& c) {
    const rollouts<T> x(c);
    const auto shape = x.shape();
    const double beta = c.number("beta");
    const grpo::pooling how = c.text("log_prob") == "average" ? grpo::pooling::mean : grpo::pooling::sum;
    std::vector<T> policy(x.cu.size() - 1);
    std::vector<T> reference(x.cu.size() - 1);
    grpo::sequence_logp(shape, x.logp, policy, how);
    grpo::sequence_logp(shape, x.logp_ref, reference, how);
    std::vector<T> w, l, rw, rl;
    split(policy, w, l);
    split(reference, rw, rl);
    const std::int64_t n = static_cast<std::int64_t>(w.size());
    const auto b = grpo::batch(grpo::padded(1, n), grpo::chosen(w), grpo::rejected(l), grpo::ref_chosen(rw),
                               grpo::ref_rejected(rl));
    std::vector<T> gw(w.size());
    std::vector<T> gl(w.size());
    grpo::gradient_coefficient(grpo::serial{}, grpo::paradigm_dpo(beta), b, grpo::d_chosen(gw), grpo::d_rejected(gl));
    std::vector<T> coefficient(x.logp.size(), T(9));
    grpo::spread(shape, woven(gw, gl), coefficient);
    CHECK(vectors::difference(coefficient, c.expected<double>("coefficient"), c.tolerance<T>()) == "");

    const grpo::objective loss{grpo::dpo{.beta = beta}, grpo::aggregation::token_mean()};
    const double pairs = static_cast<double>(n);
    const auto got = grpo::evaluate(grpo::serial{}, loss, b, pairs, grpo::d_chosen(gw), grpo::d_rejected(gl));
    std::vector<T> d(x.logp.size(), T(9));
    grpo::spread(shape, woven(gw, gl), d, how);
    CHECK(vectors::close(got.loss(pairs), c.value(), c.tolerance<T>()));
    CHECK(vectors::difference(d, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
}

template <class T>
void run_all() {
    for (const test_case& c : vectors::load("paradigm")) {
        INFO(c.id());
        const std::string m = c.method();
        if (m == "sft") check_tokens<T>(c, grpo::nll{});
        else if (m == "rft") check_tokens<T>(c, grpo::rft{});
        else if (m == "online_rft") check_tokens<T>(c, grpo::online_rft{});
        else if (m == "ppo") check_tokens<T>(c, grpo::clipped{.low = c.number("low"), .high = c.number("high")});
        else if (m == "grpo") check_tokens<T>(c, grpo::on_policy{} + c.number("beta") * grpo::kl{});
        else if (m == "dpo") check_dpo<T>(c);
        else FAIL_CHECK("no test for method " << m);
    }
}

}  // namespace

TEST_CASE("gradient coefficients of the paradigm in double") { run_all<double>(); }
TEST_CASE("gradient coefficients of the paradigm in float") { run_all<float>(); }

TEST_CASE("a gradient is the coefficients times the tokens' weights, for any term") {
    const std::vector<double> logp{-1, -0.5, -2, -0.25, -3};
    const std::vector<double> old{-1.5, -0.5, -1.75, -1, -3.5};
    const std::vector<double> advantage{1, 1, -1, -1, -1};
    const std::vector<int> cu{0, 2, 5};
    const std::vector<std::uint8_t> mask{1, 1, 1, 0, 1};
    const auto shape = grpo::ragged(cu).where(mask);
    const auto b = grpo::batch(shape, grpo::logp(logp), grpo::logp_old(old), grpo::advantage(advantage));
    std::vector<double> coefficient(5, 9);
    std::vector<double> d(5, 9);
    grpo::gradient_coefficient(grpo::serial{}, grpo::clipped{}, b, grpo::d_logp(coefficient));
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::sequence_mean()};
    (void)grpo::evaluate(grpo::serial{}, loss, b, 2.0, grpo::d_logp(d));
    for (std::size_t t = 0; t < d.size(); ++t) CHECK(d[t] == doctest::Approx(-coefficient[t] / 2 / 2));
    CHECK(coefficient[3] == 0);
    CHECK_FALSE(std::signbit(coefficient[3]));
    CHECK(coefficient[0] == 0);  // A > 0 and the ratio above its bound: clipped
    CHECK(coefficient[1] == doctest::Approx(1));
}
