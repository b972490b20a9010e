// Bounds: what happens exactly on one and just beyond it, far outside, in 16-bit storage; and every option acts.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

namespace {

using grpo::kl_estimator;
using grpo::kl_gradient;
using grpo::kl_penalty;

// A sequence of one token: value, derivative, and what the diagnostics counted.
struct one_token {
    double value = 0;
    double slope = 0;
    grpo::diagnostics metrics;
};

template <class T>
struct token_inputs {
    T logp{}, old{}, ref{}, rollout{}, advantage = T(1), weight = T(1), keep = T(1);
};

template <class T, class Term>
one_token evaluate(const Term& term, const token_inputs<T>& in) {
    const std::vector<std::int64_t> cu{0, 1};
    const std::vector<T> logp{in.logp}, old{in.old}, ref{in.ref}, rollout{in.rollout}, a{in.advantage}, w{in.weight},
        k{in.keep};
    std::vector<T> g(1);
    const auto shape = grpo::ragged(cu);
    const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_ref(ref), grpo::logp_rollout(rollout),
                        grpo::advantage(a), grpo::weight(w), grpo::keep(k));
    const grpo::objective loss{term, grpo::aggregation::token_sum()};
    const grpo::loss_result r = grpo::evaluate(grpo::serial{}, loss.diagnosed(), b, 1.0, grpo::d_logp(g));
    return {r.sum, static_cast<double>(g[0]), r.metrics};
}

// A token whose ratio is e^d as T computes it, and the ratio.
template <class T>
token_inputs<T> with_ratio(T d, T advantage) {
    token_inputs<T> in;
    in.logp = d;
    in.advantage = advantage;
    return in;
}
template <class T>
double ratio_of(T d) {
    return static_cast<double>(std::exp(d));
}

// With the upper bound exactly at the ratio the gradient passes; with the next smaller bound it is 0.
template <class T, class Make>
void check_upper(const std::string& name, T advantage, double beyond_slope, const Make& with_bound_at) {
    CAPTURE(name);
    const T d(0.25);
    const double r = ratio_of(d);
    const double below = static_cast<double>(std::nextafter(static_cast<T>(r), T(0)));
    const double inside = -static_cast<double>(advantage) * r;
    CHECK(evaluate(with_bound_at(r), with_ratio(d, advantage)).slope == doctest::Approx(inside).epsilon(1e-6));
    CHECK(evaluate(with_bound_at(below), with_ratio(d, advantage)).slope == doctest::Approx(beyond_slope).epsilon(1e-6));
    CHECK(evaluate(with_bound_at(r), with_ratio(d, advantage)).metrics.clipped_high == 0.0);
    CHECK(evaluate(with_bound_at(below), with_ratio(d, advantage)).metrics.clipped_high == 1.0);
}

template <class T, class Make>
void check_lower(const std::string& name, const Make& with_bound_at) {
    CAPTURE(name);
    const T d(-0.25);
    const double r = ratio_of(d);
    const double above = static_cast<double>(std::nextafter(static_cast<T>(r), T(2)));
    CHECK(evaluate(with_bound_at(r), with_ratio(d, T(-1))).slope == doctest::Approx(r).epsilon(1e-6));
    CHECK(evaluate(with_bound_at(above), with_ratio(d, T(-1))).slope == 0.0);
    CHECK(evaluate(with_bound_at(r), with_ratio(d, T(-1))).metrics.clipped_low == 0.0);
    CHECK(evaluate(with_bound_at(above), with_ratio(d, T(-1))).metrics.clipped_low == 1.0);
    // Clipping would make this loss smaller: the derivative stays.
    CHECK(evaluate(with_bound_at(above), with_ratio(d, T(1))).slope == doctest::Approx(-r).epsilon(1e-6));
}

template <class T>
void check_clip_edges() {
    check_upper<T>("clipped", T(1), 0.0, [](double r) { return grpo::clipped{.high = r - 1}; });
    check_upper<T>("dual_clip", T(1), 0.0, [](double r) { return grpo::dual_clip{.high = r - 1}; });
    check_upper<T>("dual_clip's c", T(-1), 0.0, [](double r) { return grpo::dual_clip{.c = r}; });
    check_upper<T>("two_sided_clip", T(1), 0.0, [](double r) { return grpo::two_sided_clip{.high = r - 1}; });
    check_upper<T>("its delta", T(-1), 0.0, [](double r) { return grpo::two_sided_clip{.high = 0.1, .delta = r}; });
    check_upper<T>("decoupled_clip", T(1), 0.0, [](double r) { return grpo::decoupled_clip{.high = r - 1}; });
    check_upper<T>("gspo", T(1), 0.0, [](double r) { return grpo::gspo{.high = r - 1}; });
    check_upper<T>("gspo_token", T(1), 0.0, [](double r) { return grpo::gspo_token{.high = r - 1}; });
    check_lower<T>("clipped", [](double r) { return grpo::clipped{.low = 1 - r}; });
    check_lower<T>("dual_clip", [](double r) { return grpo::dual_clip{.low = 1 - r}; });
    check_lower<T>("two_sided_clip", [](double r) { return grpo::two_sided_clip{.low = 1 - r}; });
    check_lower<T>("decoupled_clip", [](double r) { return grpo::decoupled_clip{.low = 1 - r}; });
    check_lower<T>("gspo", [](double r) { return grpo::gspo{.low = 1 - r}; });
    check_lower<T>("gspo_token", [](double r) { return grpo::gspo_token{.low = 1 - r}; });
}

TEST_CASE("R1.36 a ratio exactly on a bound takes the unclipped side, one step beyond it is clipped (double)") {
    check_clip_edges<double>();
}

TEST_CASE("R1.36 a ratio exactly on a bound takes the unclipped side, one step beyond it is clipped (float)") {
    check_clip_edges<float>();
}

TEST_CASE("R1.36 GMPO's log-space bound passes the gradient when hit exactly") {
    const grpo::gmpo on{.low = 0.25, .high = 0.25};
    const grpo::gmpo inside{.low = 0.2499, .high = 0.2499};
    CHECK(evaluate(on, with_ratio(0.25, 1.0)).slope == doctest::Approx(-std::exp(0.25)));
    CHECK(evaluate(inside, with_ratio(0.25, 1.0)).slope == 0.0);
    CHECK(evaluate(on, with_ratio(-0.25, -1.0)).slope == doctest::Approx(std::exp(-0.25)));
    CHECK(evaluate(inside, with_ratio(-0.25, -1.0)).slope == 0.0);
    CHECK(evaluate(inside, with_ratio(0.25, 1.0)).metrics.clipped_high == 1.0);
    CHECK(evaluate(inside, with_ratio(-0.25, -1.0)).metrics.clipped_low == 1.0);
}

TEST_CASE("R1.36 thresholds that select keep the token that meets them exactly") {
    token_inputs<double> in;
    in.logp = -0.25;
    in.old = -1.0;
    const double moved = std::exp(-0.25) - std::exp(-1.0);
    CHECK(evaluate(grpo::dppo_tv{.high = moved}, in).slope != 0.0);
    CHECK(evaluate(grpo::dppo_tv{.high = std::nextafter(moved, 0.0)}, in).slope == 0.0);
    CHECK(evaluate(grpo::dppo_tv{.high = std::nextafter(moved, 0.0)}, in).metrics.clipped_high == 1.0);
    in.advantage = -1.0;
    in.logp = -1.0;
    in.old = -0.25;
    const double fallen = std::exp(-0.25) - std::exp(-1.0);
    CHECK(evaluate(grpo::dppo_tv{.low = fallen}, in).slope != 0.0);
    CHECK(evaluate(grpo::dppo_tv{.low = std::nextafter(fallen, 0.0)}, in).slope == 0.0);
    CHECK(evaluate(grpo::dppo_tv{.low = std::nextafter(fallen, 0.0)}, in).metrics.clipped_low == 1.0);
    CHECK(evaluate(grpo::off_policy_mask{.delta = 0.75} * grpo::reinforce{}, in).slope == 1.0);
    CHECK(evaluate(grpo::off_policy_mask{.delta = std::nextafter(0.75, 0.0)} * grpo::reinforce{}, in).slope == 0.0);
    in.advantage = 0.5;
    CHECK(evaluate(grpo::off_policy_mask{.delta = 0.0} * grpo::reinforce{}, in).slope == -0.5);
}

TEST_CASE("R1.36 advantage 0: loss 0 and derivative 0 in every policy term") {
    const auto check = [](const auto& term) {
        const one_token r = evaluate(term, with_ratio(0.5, 0.0));
        CHECK(r.value == 0.0);
        CHECK(r.slope == 0.0);
    };
    check(grpo::clipped{});
    check(grpo::dual_clip{});
    check(grpo::two_sided_clip{});
    check(grpo::decoupled_clip{});
    check(grpo::gspo{});
    check(grpo::gspo_token{});
    check(grpo::gmpo{});
    check(grpo::vespo{});
    check(grpo::cispo{});
    check(grpo::cispo_upper{});
    check(grpo::sapo{});
    check(grpo::dppo_tv{});
    check(grpo::dppo_kl{});
    check(grpo::reinforce{});
    check(grpo::on_policy{});
}

// ---- far outside ----

template <class T, class Term>
void check_far(const std::string& name, const Term& term) {
    CAPTURE(name);
    for (const T d : {T(100), T(-100)}) {
        for (const T advantage : {T(-1.5), T(1.5)}) {
            token_inputs<T> in = with_ratio(d, advantage);
            in.logp = d > 0 ? T(-1) : T(-101);
            in.old = in.logp - d;
            const one_token r = evaluate(term, in);
            CHECK(std::isfinite(r.value));
            CHECK(std::isfinite(r.slope));
            CHECK(r.metrics.clamped == 1.0);
        }
    }
}

template <class T>
void check_all_far() {
    check_far<T>("clipped", grpo::clipped{});
    check_far<T>("dual_clip", grpo::dual_clip{});
    check_far<T>("two_sided_clip", grpo::two_sided_clip{});
    check_far<T>("decoupled_clip", grpo::decoupled_clip{});
    check_far<T>("kl_cov", grpo::kl_cov{});
    check_far<T>("gspo", grpo::gspo{});
    check_far<T>("gspo_token", grpo::gspo_token{});
    check_far<T>("gmpo", grpo::gmpo{});
    check_far<T>("vespo", grpo::vespo{});
    check_far<T>("cispo", grpo::cispo{});
    check_far<T>("cispo_upper", grpo::cispo_upper{});
    check_far<T>("sapo", grpo::sapo{});
    check_far<T>("dppo_tv", grpo::dppo_tv{});
    check_far<T>("dppo_kl", grpo::dppo_kl{});
}

TEST_CASE("R1.20 a log-ratio of +-100 gives a finite loss and gradient by default, and is counted") {
    check_all_far<float>();
    check_all_far<double>();
}

TEST_CASE("R1.19 the bound's gradient rule outside it is a choice; at the bound the gradient passes") {
    grpo::clipped term;
    term.bound.bound = 0.5;
    const token_inputs<double> far = with_ratio(0.75, -1.0);
    CHECK(evaluate(term, far).value == doctest::Approx(std::exp(0.5)));
    CHECK(evaluate(term, far).slope == 0.0);
    term.bound.gradient = grpo::outside::straight_through;
    CHECK(evaluate(term, far).value == doctest::Approx(std::exp(0.5)));
    CHECK(evaluate(term, far).slope == doctest::Approx(std::exp(0.5)));
    term.bound.gradient = grpo::outside::zero;
    CHECK(evaluate(term, with_ratio(0.5, -1.0)).slope == doctest::Approx(std::exp(0.5)));
    CHECK(evaluate(term, with_ratio(0.5, -1.0)).metrics.clamped == 0.0);
    term.bound.bound = grpo::math::unbounded;
    CHECK(evaluate(term, far).slope == doctest::Approx(std::exp(0.75)));
}

TEST_CASE("R1.19 e^88.7 is the largest that float holds; a bound of 20 keeps the default inside") {
    grpo::clipped wide{.bound = {88.7}};
    CHECK(std::isfinite(evaluate(wide, with_ratio(100.0f, -1.0f)).value));
    wide.bound.bound = 89;
    CHECK(std::isinf(evaluate(wide, with_ratio(100.0f, -1.0f)).value));
}

// A 16-bit storage type: the upper half of a float.
struct bfloat {
    std::uint16_t bits = 0;
    bfloat() = default;
    explicit bfloat(float x) {
        std::uint32_t all = 0;
        std::memcpy(&all, &x, sizeof all);
        bits = static_cast<std::uint16_t>((all + 0x7fffu + ((all >> 16) & 1u)) >> 16);
    }
    operator float() const {
        const std::uint32_t all = static_cast<std::uint32_t>(bits) << 16;
        float x = 0;
        std::memcpy(&x, &all, sizeof x);
        return x;
    }
};

TEST_CASE("R1.19 16-bit storage is computed in float") {
    const std::vector<std::int64_t> cu{0, 2};
    const std::vector<bfloat> logp{bfloat(-1.0f), bfloat(-2.0f)}, old{bfloat(-1.0078125f), bfloat(-14.0f)};
    const std::vector<float> wide{-1.0f, -2.0f}, wide_old{-1.0078125f, -14.0f};
    const std::vector<float> advantage{-1.0f};
    std::vector<bfloat> g(2);
    std::vector<float> wide_g(2);
    const auto shape = grpo::ragged(cu);
    const grpo::objective loss{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_sum()};
    const auto a = grpo::advantage(grpo::by_sequence(advantage));
    const grpo::batch narrow(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_ref(old), a);
    const grpo::batch full(shape, grpo::logp(wide), grpo::logp_old(wide_old), grpo::logp_ref(wide_old), a);
    const double n = grpo::evaluate(grpo::serial{}, loss, narrow, 1.0, grpo::d_logp(g)).sum;
    const double f = grpo::evaluate(grpo::serial{}, loss, full, 1.0, grpo::d_logp(wide_g)).sum;
    CHECK(n == f);
    CHECK(f > 160000);  // e^12, beyond the 65504 of a half
    CHECK(static_cast<float>(g[0]) == static_cast<float>(bfloat(wide_g[0])));
    CHECK(static_cast<float>(g[1]) == static_cast<float>(bfloat(wide_g[1])));
}

// ---- R1.34 ----

// A batch on which every option of every term has something to act on.
struct rich {
    std::vector<std::int64_t> cu{0, 4, 7, 9};
    std::vector<double> logp{-0.2, -1.5, -0.7, -2.0, -0.1, -1.1, -0.4, -0.6, -3.0};
    std::vector<double> old{-1.4, -1.4, -0.2, -0.1, -1.9, -1.0, -0.5, -0.9, -0.4};
    std::vector<double> ref{-0.9, -1.0, -0.6, -4.0, -0.6, -1.2, -1.4, -0.5, -1.0};
    std::vector<double> advantage{1.5, -0.7, 0.4, -1.0, -2.0, 0.6, 1.0, 0.8, -0.3};
    std::vector<double> keep{1, 0, 1, 1, 0, 1, 0, 1, 1}, label{1, 0, 1, 1, 0, 1, 0, 1, 1};
    std::vector<double> value{0.3, 1.5, -0.4, 2.0, 0.1, -1.0, 0.6, 0.0, 0.9};
    std::vector<double> value_old{0.0, 0.4, -0.5, 0.1, 0.9, -1.1, 1.4, 0.1, 0.8};
    std::vector<double> target{1.0, 0.2, -2.0, 2.5, -1.0, 0.4, 0.6, 3.0, -20.0};

    template <class Term>
    std::vector<double> outputs(const Term& term) const {
        std::vector<double> g(9), v(9);
        const auto shape = grpo::ragged(cu);
        const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_ref(ref), grpo::logp_rollout(ref),
                            grpo::advantage(advantage), grpo::keep(keep), grpo::label(label), grpo::values(value),
                            grpo::values_old(value_old), grpo::returns(target));
        const grpo::objective loss{term, grpo::aggregation::token_mean()};
        g.push_back(grpo::evaluate(grpo::serial{}, loss, b, 9.0, grpo::d_logp(g), grpo::d_values(v)).sum);
        g.insert(g.end(), v.begin(), v.end());
        return g;
    }
};

// Changing the field changes an output.
template <class Term, class Change>
void option(const std::string& name, Term term, Change change) {
    CAPTURE(name);
    const rich batch;
    const std::vector<double> before = batch.outputs(term);
    change(term);
    CHECK(batch.outputs(term) != before);
}

template <class Term>
void bound_options(const std::string& name, Term term) {
    option(name, term, [](Term& t) { t.bound.bound = 0.3; });
    term.bound.bound = 0.3;
    option(name, term, [](Term& t) { t.bound.gradient = grpo::outside::straight_through; });
}

template <class Term>
void clip_options(const std::string& name, const Term& term) {
    option(name, term, [](Term& t) { t.low = 0.02; });
    option(name, term, [](Term& t) { t.high = 0.02; });
}

TEST_CASE("R1.34 every option of the clips acts") {
    const double l = 0.4, h = 0.6;
    clip_options("clipped", grpo::clipped{l, h});
    clip_options("dual_clip", grpo::dual_clip{l, h});
    clip_options("two_sided_clip", grpo::two_sided_clip{l, h});
    clip_options("decoupled_clip", grpo::decoupled_clip{l, h});
    clip_options("gspo", grpo::gspo{l, h});
    clip_options("gspo_token", grpo::gspo_token{l, h});
    clip_options("gmpo", grpo::gmpo{l, h});
    clip_options("cispo", grpo::cispo{l, h});
    clip_options("dppo_tv", grpo::dppo_tv{l, h});
    clip_options("dppo_kl", grpo::dppo_kl{2.0, 2.0});
    option("dual_clip.c", grpo::dual_clip{l, h}, [](auto& t) { t.c = 1.2; });
    option("two_sided_clip.delta", grpo::two_sided_clip{l, h}, [](auto& t) { t.delta = 1.7; });
    option("cispo_upper.cap", grpo::cispo_upper{}, [](auto& t) { t.cap = 1.1; });
    option("dppo_tv.cap", grpo::dppo_tv{l, h}, [](auto& t) { t.cap = 1.1; });
    option("dppo_kl.cap", grpo::dppo_kl{l, h}, [](auto& t) { t.cap = 1.1; });
}

TEST_CASE("R1.34 every safety bound and its gradient rule act") {
    bound_options("clipped", grpo::clipped{0.4, 0.6});
    bound_options("dual_clip", grpo::dual_clip{0.4, 0.6});
    bound_options("two_sided_clip", grpo::two_sided_clip{0.4, 0.6});
    bound_options("decoupled_clip", grpo::decoupled_clip{0.4, 0.6});
    bound_options("kl_cov", grpo::kl_cov{});
    bound_options("gspo", grpo::gspo{0.4, 0.6});
    bound_options("gspo_token", grpo::gspo_token{0.4, 0.6});
    bound_options("gmpo", grpo::gmpo{0.4, 0.6});
    bound_options("sapo", grpo::sapo{});
    bound_options("kl", grpo::kl{});
    bound_options("entropy_estimate", grpo::entropy_estimate{});
    bound_options("k3 score", kl_penalty<kl_estimator::k3, kl_gradient::score>{});
    bound_options("k3 importance", kl_penalty<kl_estimator::k3, kl_gradient::importance>{});
    // Their weights are constants: the bound acts on the value, and there is no gradient for a rule to change.
    option("vespo", grpo::vespo{}, [](auto& t) { t.bound.bound = 0.3; });
    option("cispo", grpo::cispo{0.4, 0.9}, [](auto& t) { t.bound.bound = 0.3; });
    option("cispo_upper", grpo::cispo_upper{}, [](auto& t) { t.bound.bound = 0.3; });
    option("dppo_tv", grpo::dppo_tv{0.4, 0.9}, [](auto& t) { t.bound.bound = 0.3; });
    option("dppo_kl", grpo::dppo_kl{0.4, 0.9}, [](auto& t) { t.bound.bound = 0.3; });
}

TEST_CASE("R1.34 every option of the smooth terms acts") {
    option("sapo.tau_positive", grpo::sapo{}, [](auto& t) { t.tau_positive = 2; });
    option("sapo.tau_negative", grpo::sapo{}, [](auto& t) { t.tau_negative = 2; });
    option("vespo.k_positive", grpo::vespo{}, [](auto& t) { t.k_positive = 1; });
    option("vespo.lambda_positive", grpo::vespo{}, [](auto& t) { t.lambda_positive = 1; });
    option("vespo.k_negative", grpo::vespo{}, [](auto& t) { t.k_negative = 1; });
    option("vespo.lambda_negative", grpo::vespo{}, [](auto& t) { t.lambda_negative = 1; });
    option("dro.beta", grpo::dro{.beta = 0.1}, [](auto& t) { t.beta = 0.2; });
    option("kl_cov.coef", grpo::kl_cov{}, [](auto& t) { t.coef = 0.5; });
    option("positive_nll.coef", grpo::positive_nll{}, [](auto& t) { t.coef = 0.5; });
    option("off_policy_mask.delta", grpo::off_policy_mask{.delta = 0.01}, [](auto& t) { t.delta = 5; });
    option("value_loss.clip", grpo::value_loss{}, [](auto& t) { t.clip = 0.7; });
    option("value_loss.factor", grpo::value_loss{}, [](auto& t) { t.factor = 1; });
    option("huber_value_loss.delta", grpo::huber_value_loss{}, [](auto& t) { t.delta = 1; });
    option("huber_value_loss.clip", grpo::huber_value_loss{}, [](auto& t) { t.clip = 0.7; });
    option("huber_value_loss.factor", grpo::huber_value_loss{}, [](auto& t) { t.factor = 2; });
}

TEST_CASE("R1.34 every option of the KL penalty acts") {
    using weighted = kl_penalty<kl_estimator::k3, kl_gradient::importance>;
    option("kl.output", grpo::kl{}, [](auto& t) { t.output.bound = 0.1; });
    option("kl.output's rule", grpo::kl{.output = {0.1}},
           [](auto& t) { t.output.gradient = grpo::outside::straight_through; });
    option("kl.ratio", weighted{}, [](auto& t) { t.ratio.bound = 0.3; });
    weighted bounded;
    bounded.ratio.bound = 0.3;
    option("kl.ratio's rule", bounded, [](auto& t) { t.ratio.gradient = grpo::outside::straight_through; });
    const rich batch;
    const std::vector<double> own = batch.outputs(grpo::kl{});
    CHECK(own != batch.outputs(kl_penalty<kl_estimator::k1, kl_gradient::own>{}));
    CHECK(own != batch.outputs(kl_penalty<kl_estimator::k2, kl_gradient::own>{}));
    CHECK(own != batch.outputs(kl_penalty<kl_estimator::abs, kl_gradient::own>{}));
    CHECK(own != batch.outputs(kl_penalty<kl_estimator::k3, kl_gradient::k2>{}));
    CHECK(own != batch.outputs(kl_penalty<kl_estimator::k3, kl_gradient::score>{}));
    CHECK(own != batch.outputs(weighted{}));
    CHECK(batch.outputs(weighted{}) !=
          batch.outputs(kl_penalty<kl_estimator::k3, kl_gradient::sequence_importance>{}));
}

TEST_CASE("R1.34 dual clip applies only where the advantage is negative") {
    for (const double d : {-1.0, 0.5, 2.0}) {
        const one_token plain = evaluate(grpo::clipped{}, with_ratio(d, 0.7));
        const one_token dual = evaluate(grpo::dual_clip{.c = 1.1}, with_ratio(d, 0.7));
        CHECK(plain.value == dual.value);
        CHECK(plain.slope == dual.slope);
    }
    CHECK(evaluate(grpo::dual_clip{.c = 1.1}, with_ratio(2.0, -0.7)).value == doctest::Approx(0.77));
    CHECK(evaluate(grpo::dual_clip{.c = 1.1}, with_ratio(2.0, -0.7)).slope == 0.0);
}

// ---- hyper-parameters out of range; factors; on-policy ----

template <class Term>
std::string refused(const Term& term) {
    return term.validate("evaluate").text;
}

TEST_CASE("hyper-parameters out of range are refused with function, argument and both numbers") {
    CHECK(refused(grpo::clipped{.low = -0.25}) == "grpo::evaluate: clipped.low is -0.25, but must be at least 0");
    CHECK(refused(grpo::dro{}) == "grpo::evaluate: dro.beta is 0, but must be above 0");
    CHECK(refused(grpo::dual_clip{.c = 0.5}) == "grpo::evaluate: dual_clip.c is 0.5, but must be at least 1");
    CHECK(refused(grpo::two_sided_clip{.high = 0.5, .delta = 1.25}) ==
          "grpo::evaluate: two_sided_clip.delta is 1.25, but must be at least 1.5");
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const double bad : {-1.0, nan}) {
        CHECK(refused(grpo::clipped{.high = bad}) != "");
        CHECK(refused(grpo::clipped{.bound = {bad}}) != "");
        CHECK(refused(grpo::decoupled_clip{.low = bad}) != "");
        CHECK(refused(grpo::kl_cov{.coef = bad}) != "");
        CHECK(refused(grpo::gspo{.low = bad}) != "");
        CHECK(refused(grpo::gspo_token{.high = bad}) != "");
        CHECK(refused(grpo::gmpo{.low = bad}) != "");
        CHECK(refused(grpo::vespo{.k_negative = bad}) != "");
        CHECK(refused(grpo::cispo{.high = bad}) != "");
        CHECK(refused(grpo::cispo_upper{.cap = bad}) != "");
        CHECK(refused(grpo::sapo{.tau_negative = bad}) != "");
        CHECK(refused(grpo::dppo_tv{.cap = bad}) != "");
        CHECK(refused(grpo::dppo_kl{.low = bad}) != "");
        CHECK(refused(grpo::kl{.output = {bad}}) != "");
        CHECK(refused(grpo::value_loss{.clip = bad}) != "");
        CHECK(refused(grpo::huber_value_loss{.delta = bad}) != "");
        CHECK(refused(grpo::positive_nll{.coef = bad}) != "");
        CHECK(refused(grpo::off_policy_mask{.delta = bad}) != "");
    }
    CHECK(refused(grpo::off_policy_mask{}) != "");
    CHECK_THROWS_AS((void)evaluate(grpo::kl{} + 2 * grpo::clipped{.low = -1}, with_ratio(0.0, 1.0)), grpo::error);
}

TEST_CASE("R1.15 a factor of 0 selects: the term may overflow there") {
    const grpo::clipped unbounded{.bound = {grpo::math::unbounded}};
    token_inputs<float> in = with_ratio(100.0f, -1.0f);
    REQUIRE(std::isinf(evaluate(unbounded, in).value));
    in.weight = 0.0f;
    in.keep = 0.0f;
    const auto dropped = [&](const auto& term) {
        const one_token r = evaluate(term, in);
        CHECK(r.value == 0.0);
        CHECK(r.slope == 0.0);
    };
    dropped(grpo::rollout_weighted{} * unbounded);
    dropped(grpo::selected{} * unbounded);
    dropped(grpo::selected{} * grpo::rollout_weighted{} * unbounded);
    in.old = 200.0f;
    in.logp = 100.0f;
    in.keep = 1.0f;
    dropped(grpo::off_policy_mask{.delta = 1.0} * grpo::selected{} * grpo::kl_cov{});
}

TEST_CASE("R1.30 on-policy mode takes no logp_old: value -sum A / N, gradient -A / N, ratio exactly 1") {
    const std::vector<std::int64_t> cu{0, 2, 3};
    const std::vector<float> logp{-1.5f, -700.0f, -0.125f}, advantage{0.75f, -2.0f};
    std::vector<float> g(3);
    const auto shape = grpo::ragged(cu);
    const grpo::batch b(shape, grpo::logp(logp), grpo::advantage(grpo::by_sequence(advantage)));
    const grpo::objective loss{grpo::on_policy{}, grpo::aggregation::token_mean()};
    const grpo::loss_result r = grpo::evaluate(grpo::serial{}, loss, b, 4.0, grpo::d_logp(g));
    CHECK(r.sum == -(0.75 + 0.75 - 2.0));
    CHECK(g == std::vector<float>{-0.1875f, -0.1875f, 0.5f});
}

TEST_CASE("R1.35 GSPO's ratio is e^(mean of the active log-ratios); empty sequences are skipped") {
    const std::vector<std::int64_t> cu{0, 4, 4, 6};
    const std::vector<std::uint8_t> mask{1, 0, 1, 1, 0, 0};
    const std::vector<double> old(6, -2.0), logp{-1.5, 50.0, -2.25, -1.75, 9.0, 9.0}, advantage{2.0, 1.0, 1.0};
    std::vector<double> g(6, 7.0);
    const auto shape = grpo::ragged(cu).where(mask);
    const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(old), grpo::advantage(grpo::by_sequence(advantage)));
    const grpo::objective loss{grpo::gspo{.low = 0.5, .high = 0.5}, grpo::aggregation::sequence_mean()};
    const double n = loss.over.denominator(grpo::count(shape));
    const grpo::loss_result r = grpo::evaluate(grpo::serial{}, loss, b, n, grpo::d_logp(g));
    const double s = std::exp((0.5 - 0.25 + 0.25) / 3);
    CHECK(n == 1.0);
    CHECK(r.loss(n) == doctest::Approx(-2 * s).epsilon(1e-14));
    for (const std::size_t t : {0u, 2u, 3u}) CHECK(g[t] == doctest::Approx(-2 * s / 3).epsilon(1e-14));
    for (const std::size_t t : {1u, 4u, 5u}) CHECK(g[t] == 0.0);
}

}  // namespace
