// Preference losses against the reference vectors (D01-D24), their limits, options and errors.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>
#include <grpo/preference.hpp>

#include <support/sentence.hpp>

#include "support/vectors.hpp"

namespace {

using vectors::test_case;

// Every input a pair term may need; those a case lacks stay empty and are never read.
template <class T>
struct pair_data {
    std::vector<T> chosen, rejected, gold, ref_chosen, ref_rejected, chosen_length, rejected_length, gold_length, margin,
        weight, preferred;

    auto batch() const {
        return grpo::batch(grpo::padded(1, static_cast<std::int64_t>(chosen.size())), grpo::chosen(chosen),
                           grpo::rejected(rejected), grpo::gold(gold), grpo::ref_chosen(ref_chosen),
                           grpo::ref_rejected(ref_rejected), grpo::chosen_length(chosen_length),
                           grpo::rejected_length(rejected_length), grpo::gold_length(gold_length), grpo::margin(margin),
                           grpo::pair_weight(weight), grpo::preferred(preferred));
    }
};

template <class T>
struct outcome {
    double value = 0;
    std::vector<T> chosen, rejected, gold;
};

template <class T, class Term>
outcome<T> evaluate_mean(const Term& term, const pair_data<T>& x) {
    const std::size_t n = x.chosen.size();
    outcome<T> r{0, std::vector<T>(n), std::vector<T>(n), std::vector<T>(n)};
    const double pairs = static_cast<double>(n);
    const auto got =
        grpo::evaluate(grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()}, x.batch(), pairs,
                       grpo::d_chosen(r.chosen), grpo::d_rejected(r.rejected), grpo::d_gold(r.gold));
    r.value = got.loss(pairs);
    return r;
}

// One pair without lengths: the loss and its two slopes.
template <class T, class Term>
outcome<T> one(const Term& term, T chosen, T rejected, T ref_chosen = 0, T ref_rejected = 0) {
    pair_data<T> x;
    x.chosen = {chosen};
    x.rejected = {rejected};
    x.gold = {T(-1)};
    x.ref_chosen = {ref_chosen};
    x.ref_rejected = {ref_rejected};
    x.chosen_length = x.rejected_length = x.gold_length = {T(1)};
    x.margin = {T(0)};
    x.weight = x.preferred = {T(1)};
    return evaluate_mean(term, x);
}

template <class T>
pair_data<T> read_pairs(const test_case& c) {
    pair_data<T> x;
    const auto fill = [&](std::vector<T>& to, const char* name) {
        if (c.has(name)) to = c.input<T>(name);
    };
    fill(x.chosen, "chosen");
    fill(x.rejected, "rejected");
    fill(x.gold, "gold");
    fill(x.ref_chosen, "ref_chosen");
    fill(x.ref_rejected, "ref_rejected");
    fill(x.chosen_length, "chosen_length");
    fill(x.rejected_length, "rejected_length");
    fill(x.gold_length, "gold_length");
    return x;
}

template <class T>
double sum_of(const std::vector<T>& x) {
    double s = 0;
    for (const T v : x) s += static_cast<double>(v);
    return s;
}

template <class T>
void check_outcome(const test_case& c, const outcome<T>& got, const char* w = "gradient/chosen",
                   const char* l = "gradient/rejected") {
    const double tolerance = c.tolerance<T>();
    CHECK_MESSAGE(vectors::close(got.value, c.value(), tolerance), "value " << got.value << " for " << c.value());
    CHECK(vectors::difference(got.chosen, c.expected<double>(w), tolerance) == "");
    CHECK(vectors::difference(got.rejected, c.expected<double>(l), tolerance) == "");
    if (c.expects("gradient/gold")) {
        CHECK(vectors::difference(got.gold, c.expected<double>("gradient/gold"), tolerance) == "");
    }
}

// Term by term, the values of the single pairs.
template <class T, class Term>
void check_each_pair(const test_case& c, const Term& term, const pair_data<T>& x) {
    if (!c.expects("pair_loss")) return;
    const std::vector<double> expected = c.expected<double>("pair_loss");
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double got = one<T>(term, x.chosen[i], x.rejected[i], x.ref_chosen[i], x.ref_rejected[i]).value;
        CHECK(vectors::close(got, expected[i], c.tolerance<T>()));
    }
}

template <class T>
bool run_reference_losses(const test_case& c) {
    const pair_data<T> x = read_pairs<T>(c);
    const std::string m = c.method();
    const double beta = c.number("beta", 0.0);
    const double eps = c.number("label_smoothing", 0.0);
    const auto with = [&](const auto& term) {
        check_outcome(c, evaluate_mean(term, x));
        check_each_pair(c, term, x);
        return true;
    };
    if (m == "dpo") return with(grpo::dpo{.beta = beta});
    if (m == "cdpo") return with(grpo::cdpo{.beta = beta, .label_smoothing = eps});
    if (m == "robust_dpo") return with(grpo::robust_dpo{.beta = beta, .label_smoothing = eps});
    if (m == "hinge") return with(grpo::hinge{.beta = beta});
    if (m == "exo") return with(grpo::exo{.beta = beta, .label_smoothing = eps});
    if (m == "nca") return with(grpo::nca{.beta = beta});
    if (m == "bco_pair") return with(grpo::bco_pair{.beta = beta});
    if (m == "sppo_hard") return with(grpo::sppo_hard{.beta = beta});
    if (m == "apo_zero") return with(grpo::apo_zero{.beta = beta});
    if (m == "apo_down") return with(grpo::apo_down{.beta = beta});
    if (m == "discopop") return with(grpo::discopop{.beta = beta, .tau = c.number("tau")});
    if (m == "f_divergence") {
        const std::string kind = c.text("divergence");
        using grpo::divergence;
        const divergence d = kind == "reverse_kl"   ? divergence::reverse_kl
                             : kind == "forward_kl" ? divergence::forward_kl
                             : kind == "js"         ? divergence::js
                                                    : divergence::alpha;
        REQUIRE((d != divergence::alpha || kind == "alpha"));
        return with(grpo::f_dpo{
            .beta = beta, .kind = d, .alpha = c.number("alpha"), .exponent_bound = c.number("exponent_bound")});
    }
    return false;
}

template <class T>
bool run_normalised_losses(const test_case& c) {
    const pair_data<T> x = read_pairs<T>(c);
    const std::string m = c.method();
    const double beta = c.number("beta", 0.0);
    const auto with = [&](const auto& term) {
        check_outcome(c, evaluate_mean(term, x));
        return true;
    };
    if (m == "sigmoid_norm") return with(grpo::per_token{grpo::dpo{.beta = beta}});
    if (m == "ipo") {
        return c.text("log_prob") == "average" ? with(grpo::per_token{grpo::ipo{.beta = beta}})
                                               : with(grpo::ipo{.beta = beta});
    }
    if (m == "simpo") {
        return with(grpo::simpo{
            .beta = beta, .gamma = c.number("gamma"), .label_smoothing = c.number("label_smoothing")});
    }
    if (m == "alpha_po") return with(grpo::alpha_po{.alpha = c.number("alpha"), .beta = beta, .gamma = c.number("gamma")});
    return false;
}

// The likelihood part in its three normalisations, added to a preference part.
template <class T, class Preference, class Nll>
void check_with_nll(const test_case& c, const Preference& preference, const Nll& nll, const pair_data<T>& x,
                    const std::vector<T>& lengths) {
    const double coef = c.number("nll_coef", 1.0);
    const std::string how = c.text("nll");
    if (how == "sum") {
        check_outcome(c, evaluate_mean(preference + coef * nll, x));
    } else if (how == "sequence_mean") {
        check_outcome(c, evaluate_mean(preference + coef * grpo::per_token{nll}, x));
    } else {
        REQUIRE(how == "token_mean");
        const double tokens_per_pair = sum_of(lengths) / static_cast<double>(lengths.size());
        check_outcome(c, evaluate_mean(preference + (coef / tokens_per_pair) * nll, x));
    }
}

template <class T>
bool run_likelihood_losses(const test_case& c) {
    const pair_data<T> x = read_pairs<T>(c);
    const std::string m = c.method();
    const double beta = c.number("beta", 0.0);
    const double eps = c.number("label_smoothing", 0.0);
    const grpo::contrastive contrast{.beta = beta, .label_smoothing = eps};
    if (m == "dpo_nll") {
        check_with_nll(c, grpo::cdpo{.beta = beta, .label_smoothing = eps}, grpo::chosen_nll{}, x, x.chosen_length);
    } else if (m == "cpo") {
        check_with_nll(c, contrast, grpo::chosen_nll{}, x, x.chosen_length);
        if (c.text("nll") == "sum") check_outcome(c, evaluate_mean(grpo::cpo(beta, eps, c.number("nll_coef")), x));
    } else if (m == "orpo") {
        if (c.text("log_prob") == "average") {
            check_with_nll(c, beta * grpo::per_token{grpo::odds_ratio{}}, grpo::chosen_nll{}, x, x.chosen_length);
            if (c.text("nll") == "sequence_mean") check_outcome(c, evaluate_mean(grpo::orpo(beta), x));
        } else {
            check_with_nll(c, beta * grpo::odds_ratio{}, grpo::chosen_nll{}, x, x.chosen_length);
        }
    } else if (m == "tpo") {
        check_with_nll(c, contrast, grpo::gold_nll{}, x, x.gold_length);
        if (c.text("nll") == "sum") check_outcome(c, evaluate_mean(grpo::tpo(beta, eps, c.number("nll_coef")), x));
    } else if (m == "tpo_l") {
        const grpo::simpo normalised{.beta = beta, .gamma = c.number("gamma"), .label_smoothing = eps};
        check_with_nll(c, normalised, grpo::gold_nll{}, x, x.gold_length);
        if (c.text("nll") == "sum") {
            check_outcome(c, evaluate_mean(grpo::tpo_l(beta, c.number("gamma"), eps, c.number("nll_coef")), x));
        }
    } else {
        return false;
    }
    return true;
}

template <class T>
bool run_sorted(const test_case& c) {
    pair_data<T> x = read_pairs<T>(c);
    const std::size_t n = x.chosen.size();
    std::vector<std::int64_t> work(2 * n);
    const double beta = c.number("beta", 0.0);
    const double eps = c.number("label_smoothing", 0.0);
    if (c.method() == "aot") {
        x.margin.resize(n);
        grpo::aot_match(x.chosen, x.rejected, x.ref_chosen, x.ref_rejected, work, x.margin);
        check_outcome(c, evaluate_mean(grpo::aot{.beta = beta, .label_smoothing = eps}, x));
        return true;
    }
    if (c.method() != "aot_unpaired") return false;
    std::vector<std::int64_t> partner(n);
    grpo::aot_unpaired_match(x.chosen, x.rejected, x.ref_chosen, x.ref_rejected, work, partner);
    pair_data<T> matched = x;
    grpo::gather(partner, x.rejected, matched.rejected);
    grpo::gather(partner, x.ref_rejected, matched.ref_rejected);
    outcome<T> got = evaluate_mean(grpo::cdpo{.beta = beta, .label_smoothing = eps}, matched);
    const std::vector<T> by_partner = got.rejected;
    grpo::scatter(partner, by_partner, got.rejected);
    check_outcome(c, got);
    return true;
}

template <class T>
bool run_judged(const test_case& c) {
    if (c.method() != "online_dpo" && c.method() != "xpo") return false;
    pair_data<T> x;
    x.chosen = c.input<T>("first");
    x.rejected = c.input<T>("second");
    x.ref_chosen = c.input<T>("ref_first");
    x.ref_rejected = c.input<T>("ref_second");
    x.preferred = c.input<T>("first_preferred");
    const double beta = c.number("beta");
    const auto with = [&](const auto& loss) {
        if (c.method() == "xpo") {
            check_outcome(c, evaluate_mean(grpo::xpo(loss, c.number("alpha")), x), "gradient/first", "gradient/second");
        } else {
            check_outcome(c, evaluate_mean(grpo::online_dpo(loss), x), "gradient/first", "gradient/second");
        }
    };
    if (c.text("loss") == "ipo") {
        with(grpo::ipo{.beta = beta});
    } else {
        REQUIRE(c.text("loss") == "sigmoid");
        with(grpo::dpo{.beta = beta});
    }
    return true;
}

template <class T>
bool run_unpaired(const test_case& c) {
    if (c.method() == "bco_running_mean") {
        grpo::moments::state<double> s{c.scalar_input("count/0"), c.scalar_input("mean/0"), 0};
        const std::vector<T> rewards = c.input<T>("reward");
        grpo::add_log_ratios(s, rewards, std::vector<T>(rewards.size()));
        CHECK(vectors::close(s.mean, c.expected_number("mean/0"), c.tolerance<double>()));
        CHECK(s.n == c.expected_number("count/0"));
        return true;
    }
    if (c.method() != "kto" && c.method() != "bco") return false;
    const std::vector<T> logp = c.input<T>("logp");
    const std::vector<T> ref = c.input<T>("logp_ref");
    const std::vector<T> label = c.input<T>("label");
    const std::int64_t n = static_cast<std::int64_t>(logp.size());
    const auto b = grpo::batch(grpo::padded(1, n), grpo::logp(logp), grpo::logp_ref(ref), grpo::label(label));
    std::vector<T> d(logp.size());
    const auto with = [&](const auto& term) {
        const auto got = grpo::evaluate(grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()}, b,
                                        static_cast<double>(n), grpo::d_logp(d));
        CHECK(vectors::close(got.loss(), c.value(), c.tolerance<T>()));
        CHECK(vectors::difference(d, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
    };
    if (c.method() == "kto") {
        grpo::moments::state<double> mismatched;
        grpo::add_log_ratios(mismatched, c.input<T>("kl_logp"), c.input<T>("kl_logp_ref"));
        const double kl = grpo::kto_reference(mismatched);
        CHECK(vectors::close(kl, c.expected_number("kl"), c.tolerance<T>()));
        with(grpo::kto{.beta = c.number("beta"),
                       .desirable_weight = c.number("desirable_weight"),
                       .undesirable_weight = c.number("undesirable_weight"),
                       .kl = kl});
    } else {
        with(grpo::bco{.beta = c.number("beta"), .delta = c.number("delta")});
    }
    return true;
}

// Token log-probs of one side, its sums (weighted or not), and the way back.
template <class T>
struct side {
    std::vector<T> logp, ref, weight;
    std::vector<std::int64_t> cu;

    side(const test_case& c, const std::string& name)
        : logp(c.input<T>(name + "_logp")), ref(c.input<T>("ref_" + name + "_logp")),
          weight(logp.size(), T(1)), cu(c.input<std::int64_t>(name + "_cu_seqlens")) {}

    auto layout() const { return grpo::ragged(cu); }
    std::vector<T> sums(const std::vector<T>& x) const {
        std::vector<T> out(cu.size() - 1, T(77));
        grpo::weighted_sequence_logp(grpo::serial{}, layout(), x, weight, out);
        return out;
    }
    std::vector<T> back(const std::vector<T>& slope) const {
        std::vector<T> d(logp.size(), T(77));
        grpo::weighted_spread(grpo::serial{}, layout(), slope, weight, d);
        return d;
    }
};

template <class T>
bool run_token_level(const test_case& c) {
    if (c.method() != "ld_dpo" && c.method() != "wpo") return false;
    side<T> w(c, "chosen");
    side<T> l(c, "rejected");
    pair_data<T> x;
    outcome<T> got;
    const double beta = c.number("beta");
    if (c.method() == "ld_dpo") {
        grpo::ld_weights(w.layout(), l.layout(), c.number("alpha"), w.weight, l.weight);
    } else {
        x.weight.resize(w.cu.size() - 1);
        grpo::wpo_weights(l.layout(), l.logp, c.input<T>("rejected_log_collision"), x.weight);
        CHECK(vectors::difference(x.weight, c.expected<double>("rejected_weight"), c.tolerance<T>()) == "");
        std::vector<T> alone(x.weight.size());
        grpo::wpo_weights(grpo::serial{}, w.layout(), w.logp, c.input<T>("chosen_log_collision"), alone);
        CHECK(vectors::difference(alone, c.expected<double>("chosen_weight"), c.tolerance<T>()) == "");
        grpo::multiply_wpo_weights(w.layout(), w.logp, c.input<T>("chosen_log_collision"), x.weight);
    }
    x.chosen = w.sums(w.logp);
    x.rejected = l.sums(l.logp);
    x.ref_chosen = w.sums(w.ref);
    x.ref_rejected = l.sums(l.ref);
    if (c.method() == "ld_dpo") {
        CHECK(vectors::difference(x.chosen, c.expected<double>("chosen"), c.tolerance<T>()) == "");
        CHECK(vectors::difference(x.ref_rejected, c.expected<double>("ref_rejected"), c.tolerance<T>()) == "");
        got = evaluate_mean(grpo::dpo{.beta = beta}, x);
    } else {
        got = evaluate_mean(grpo::by_pair_weight{} * grpo::dpo{.beta = beta}, x);
    }
    got.chosen = w.back(got.chosen);
    got.rejected = l.back(got.rejected);
    check_outcome(c, got, "gradient/chosen_logp", "gradient/rejected_logp");
    return true;
}

template <class T>
bool run_nash_md(const test_case& c) {
    if (c.method() != "nash_md") return false;
    const auto logp = c.input<T>("logp");
    const auto ref = c.input<T>("logp_ref");
    const auto win = c.input<T>("win_probability");
    const auto cu = c.input<std::int64_t>("cu_seqlens");
    const auto mask = c.input<std::uint8_t>("mask");
    const auto shape = grpo::ragged(cu).where(mask);
    std::vector<T> d(logp.size());
    const grpo::objective loss{grpo::nash_md{.beta = c.number("beta")}, grpo::aggregation::sequence_sum(true)};
    const double n = loss.over.denominator(grpo::count(shape));
    const auto got = grpo::evaluate(
        grpo::serial{}, loss,
        grpo::batch(shape, grpo::logp(logp), grpo::logp_ref(ref), grpo::advantage(grpo::by_sequence(win))), n,
        grpo::d_logp(d));
    CHECK(vectors::close(got.loss(n), c.value(), c.tolerance<T>()));
    CHECK(vectors::difference(d, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
    return true;
}

template <class T>
void run_all() {
    for (const test_case& c : vectors::load("preference")) {
        INFO(c.id());
        const bool known = run_reference_losses<T>(c) || run_normalised_losses<T>(c) || run_likelihood_losses<T>(c) ||
                           run_sorted<T>(c) || run_judged<T>(c) || run_unpaired<T>(c) || run_token_level<T>(c) ||
                           run_nash_md<T>(c);
        CHECK_MESSAGE(known, "no test for method " << c.method());
    }
}

// A loss at Δ = ±1000 in float: finite, and its limit.
template <class Term>
void check_limits(const Term& term, double at_plus, double at_minus, double slope_plus, double slope_minus) {
    const auto good = one<float>(term, 500.0f, -500.0f);
    const auto bad = one<float>(term, -500.0f, 500.0f);
    CHECK(good.value == doctest::Approx(at_plus).epsilon(1e-5));
    CHECK(bad.value == doctest::Approx(at_minus).epsilon(1e-5));
    CHECK(good.chosen[0] == doctest::Approx(slope_plus).epsilon(1e-5));
    CHECK(bad.chosen[0] == doctest::Approx(slope_minus).epsilon(1e-5));
    CHECK(std::isfinite(good.rejected[0]));
    CHECK(std::isfinite(bad.rejected[0]));
}

using errors::contains;

}  // namespace

TEST_CASE("D01-D24 value and gradient in double") { run_all<double>(); }
TEST_CASE("D01-D24 value and gradient in float") { run_all<float>(); }

TEST_CASE("preference losses are finite and right at |delta| = 1e3") {
    check_limits(grpo::dpo{.beta = 1}, 0, 1000, 0, -1);
    check_limits(grpo::cdpo{.beta = 1, .label_smoothing = 0.25}, 250, 750, 0.25, -0.75);
    check_limits(grpo::robust_dpo{.beta = 1, .label_smoothing = 0.25}, -500, 1500, -0.5, -1.5);
    check_limits(grpo::hinge{.beta = 1}, 0, 1001, 0, -1);
    check_limits(grpo::ipo{.beta = 0.5}, 999.0 * 999.0, 1001.0 * 1001.0, 1998, -2002);
    check_limits(grpo::exo{.beta = 1, .label_smoothing = 0.25}, -std::log(0.75), -std::log(0.25), 0, 0);
    check_limits(grpo::nca{.beta = 1}, 250, 750, 0.5, -1);
    check_limits(grpo::bco_pair{.beta = 1}, 0, 1000, 0, -1);
    check_limits(grpo::sppo_hard{.beta = 0.5}, 2 * 499.0 * 499.0, 2 * 501.0 * 501.0, 998, -1002);
    check_limits(grpo::apo_zero{.beta = 1}, 0, 2, 0, 0);
    check_limits(grpo::apo_down{.beta = 1}, 1, 1, 0, 0);
    check_limits(grpo::discopop{.beta = 1, .tau = 0.05}, 0, 1000, 0, -1);
    check_limits(grpo::f_dpo{.beta = 1, .kind = grpo::divergence::js}, 0, 500, 0, -1);
    check_limits(grpo::contrastive{.beta = 1}, 0, 1000, 0, -1);
    check_limits(grpo::simpo{.beta = 1, .gamma = 0.5}, 0, 1000.5, 0, -1);
    check_limits(grpo::bradley_terry{}, 0, 1000, 0, -1);
    // Exponentials that leave float are clamped, where the slope ends.
    check_limits(grpo::f_dpo{.beta = 1, .kind = grpo::divergence::forward_kl}, 0, std::exp(80.0), 0, 0);
    check_limits(grpo::f_dpo{.beta = 1, .kind = grpo::divergence::alpha}, 0, 2 * std::exp(80.0), 0, 0);
}

TEST_CASE("odds ratio at certainty and near impossibility") {
    const auto certain = one<float>(grpo::odds_ratio{}, 0.0f, -1000.0f);
    CHECK(certain.value == doctest::Approx(0));
    CHECK(certain.chosen[0] == 0);
    const auto wrong = one<float>(grpo::odds_ratio{}, -1000.0f, 0.0f);
    CHECK(wrong.value == doctest::Approx(1000 - std::log(1e-7)).epsilon(1e-5));
    CHECK(wrong.chosen[0] == doctest::Approx(-1));
    CHECK(wrong.rejected[0] == 0);
    const auto both = one<double>(grpo::odds_ratio{}, 0.0, 0.0);
    CHECK(both.value == doctest::Approx(std::log(2.0)));
}

TEST_CASE("alpha_po clamps its exponent") {
    const auto r = one<float>(grpo::alpha_po{.alpha = 1, .beta = 1, .gamma = 0}, -1000.0f, -1.0f);
    CHECK(r.value == doctest::Approx(std::exp(80.0)).epsilon(1e-5));
    CHECK(r.chosen[0] == 0);
    CHECK(r.rejected[0] == doctest::Approx(std::exp(1.0)).epsilon(1e-5));
}

TEST_CASE("hinge takes slope 0 at its kink") {
    const auto r = one<double>(grpo::hinge{.beta = 1}, 1.0, 0.0);
    CHECK(r.value == 0);
    CHECK(r.chosen[0] == 0);
}

TEST_CASE("R1.34 every option of a preference loss changes its value") {
    const auto value = [](const auto& term) { return one<double>(term, -1.5, -2.25, -2.0, -1.875).value; };
    using namespace grpo;
    CHECK(value(dpo{.beta = 0.1}) != value(dpo{.beta = 0.2}));
    CHECK(value(cdpo{}) != value(cdpo{.beta = 0.2}));
    CHECK(value(cdpo{}) != value(cdpo{.label_smoothing = 0.1}));
    CHECK(value(robust_dpo{}) != value(robust_dpo{.beta = 0.2}));
    CHECK(value(robust_dpo{}) != value(robust_dpo{.label_smoothing = 0.1}));
    CHECK(value(ipo{}) != value(ipo{.beta = 0.2}));
    CHECK(value(hinge{}) != value(hinge{.beta = 0.2}));
    CHECK(value(exo{}) != value(exo{.beta = 0.2}));
    CHECK(value(exo{}) != value(exo{.label_smoothing = 0.1}));
    CHECK(value(nca{}) != value(nca{.beta = 0.2}));
    CHECK(value(bco_pair{}) != value(bco_pair{.beta = 0.2}));
    CHECK(value(sppo_hard{}) != value(sppo_hard{.beta = 0.2}));
    CHECK(value(apo_zero{}) != value(apo_zero{.beta = 0.2}));
    CHECK(value(apo_down{}) != value(apo_down{.beta = 0.2}));
    CHECK(value(discopop{}) != value(discopop{.beta = 0.2}));
    CHECK(value(discopop{}) != value(discopop{.tau = 0.1}));
    CHECK(value(f_dpo{}) != value(f_dpo{.beta = 0.2}));
    CHECK(value(f_dpo{}) != value(f_dpo{.kind = divergence::forward_kl}));
    CHECK(value(f_dpo{}) != value(f_dpo{.kind = divergence::js}));
    CHECK(value(f_dpo{.kind = divergence::alpha}) != value(f_dpo{.kind = divergence::alpha, .alpha = 2}));
    CHECK(value(f_dpo{.kind = divergence::alpha}) != value(f_dpo{.kind = divergence::alpha, .exponent_bound = 0.0}));
    CHECK(value(f_dpo{.kind = divergence::forward_kl}) != value(f_dpo{.kind = divergence::forward_kl, .exponent_bound = 0}));
    CHECK(value(aot{}) != value(aot{.beta = 0.2}));
    CHECK(value(aot{}) != value(aot{.label_smoothing = 0.1}));
    CHECK(value(contrastive{}) != value(contrastive{.beta = 0.2}));
    CHECK(value(contrastive{}) != value(contrastive{.label_smoothing = 0.1}));
    CHECK(value(simpo{}) != value(simpo{.beta = 1}));
    CHECK(value(simpo{}) != value(simpo{.gamma = 1}));
    CHECK(value(simpo{}) != value(simpo{.label_smoothing = 0.1}));
    CHECK(value(alpha_po{}) != value(alpha_po{.alpha = 0.5}));
    CHECK(value(alpha_po{}) != value(alpha_po{.beta = 1}));
    CHECK(value(alpha_po{}) != value(alpha_po{.gamma = 1}));
    CHECK(value(alpha_po{}) != value(alpha_po{.exponent_bound = 0.1}));
    CHECK(value(odds_ratio{}) != value(odds_ratio{.certainty = 2}));
    CHECK(value(orpo(0.1)) != value(orpo(0.2)));
    CHECK(value(cpo()) != value(cpo(0.1, 0.0, 0.5)));
    CHECK(value(tpo()) != value(tpo(0.1, 0.0, 0.5)));
    CHECK(value(tpo_l()) != value(tpo_l(2.0, 0.5, 0.0, 0.5)));
    CHECK(value(xpo(dpo{}, 0.1)) != value(xpo(dpo{}, 0.2)));
}

TEST_CASE("R1.22 a likelihood weight of 0 drops the likelihood and its inputs") {
    pair_data<double> x;
    x.chosen = {-1.0, -2.0};
    x.rejected = {-2.0, -1.0};
    // No gold response in the batch: tpo with nll_coef 0 does not read it.
    CHECK(evaluate_mean(grpo::tpo(0.5, 0.0, 0.0), x).value == evaluate_mean(grpo::contrastive{.beta = 0.5}, x).value);
    CHECK(contains(errors::sentence([&] { (void)evaluate_mean(grpo::tpo(0.5, 0.0, 1.0), x); }), "gold"));
}

TEST_CASE("sequence sums skip what is masked, and spread writes +0 there (R1.12)") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const std::vector<double> logp{-1.0, nan, -2.0, -4.0, nan};
    const std::vector<int> cu{0, 2, 2, 4, 5};
    const std::vector<unsigned char> mask{1, 0, 1, 1, 0};
    const auto shape = grpo::ragged(cu).where(mask);
    std::vector<double> out(4, nan);
    grpo::sequence_logp(shape, logp, out);
    CHECK(out == std::vector<double>{-1, 0, -6, 0});
    grpo::sequence_logp(shape, logp, out, grpo::pooling::mean);
    CHECK(out == std::vector<double>{-1, 0, -3, 0});
    std::vector<double> d(5, nan);
    grpo::spread(shape, std::vector<double>{2, nan, 3, nan}, d);
    CHECK(d == std::vector<double>{2, 0, 3, 3, 0});
    CHECK_FALSE(std::signbit(d[1]));
    grpo::spread(shape, std::vector<double>{2, nan, 3, nan}, d, grpo::pooling::mean);
    CHECK(d == std::vector<double>{2, 0, 1.5, 1.5, 0});
    std::vector<double> w(5, nan);
    const std::vector<int> other{0, 3, 3, 4, 4};
    std::vector<float> l(4);
    grpo::ld_weights(shape, grpo::ragged(other), 0.5, w, l);
    CHECK(w == std::vector<double>{1, 0, 1, 0.5, 0});
    CHECK(l == std::vector<float>{1, 0.5f, 0.5f, 1});
}

TEST_CASE("AOT sorts ties by index and takes its workspace from the caller") {
    const std::vector<float> same{-1, -1, -1};
    const std::vector<float> ref{0, 2, 1};
    const std::vector<float> none{0, 0, 0};
    std::vector<std::int64_t> work(6);
    std::vector<float> margin(3);
    grpo::aot_match(same, same, ref, none, work, margin);
    CHECK(margin == std::vector<float>{0, 1, 2});
    std::vector<std::int64_t> partner(3);
    grpo::aot_unpaired_match(same, ref, none, none, work, partner);
    CHECK(partner == std::vector<std::int64_t>{0, 2, 1});
}

TEST_CASE("one bad sample does not spoil a running mean") {
    grpo::moments::state<double> s;
    grpo::add_log_ratios(s, std::vector<float>{1, std::numeric_limits<float>::infinity(), 3}, std::vector<float>(3), 0.5);
    CHECK(s.n == 2);
    CHECK(s.mean == 1);
    CHECK(grpo::kto_reference(s) == 1);
    CHECK(grpo::kto_reference({}) == 0);
}

TEST_CASE("non-finite pairs are counted with the first one's index (R1.16)") {
    pair_data<double> x;
    x.chosen = {-1, std::numeric_limits<double>::quiet_NaN(), -3};
    x.rejected = {-2, -2, -2};
    const grpo::objective loss{grpo::contrastive{}, grpo::aggregation::token_mean(), grpo::nonfinite::skip};
    std::vector<double> d(3, 9);
    const auto got = grpo::evaluate(grpo::serial{}, loss, x.batch(), 3.0, grpo::d_chosen(d));
    CHECK(got.nonfinite == 1);
    CHECK(got.first_nonfinite == 1);
    CHECK(std::isfinite(got.sum));
    CHECK(d[1] == 0);
}

TEST_CASE("wrong sizes and hyper-parameters are sentences, before anything is written") {
    pair_data<double> x;
    x.chosen = {-1, -2};
    x.rejected = {-1, -2, -3};
    CHECK(contains(errors::sentence([&] { (void)evaluate_mean(grpo::contrastive{}, x); }), "rejected has 3 entries"));
    const auto refused = [](const auto& term, const char* what) {
        return contains(errors::sentence([&] { (void)one<double>(term, -1.0, -2.0); }), what);
    };
    CHECK(refused(grpo::dpo{.beta = 0}, "dpo.beta is 0, but must be above 0"));
    CHECK(refused(grpo::ipo{.beta = -1}, "ipo.beta is -1"));
    CHECK(refused(grpo::exo{.label_smoothing = 0}, "exo.label_smoothing is 0"));
    CHECK(refused(grpo::robust_dpo{.label_smoothing = 0.5}, "robust_dpo.label_smoothing is 0.5"));
    CHECK(refused(grpo::f_dpo{.kind = grpo::divergence::alpha, .alpha = 1}, "f_dpo.alpha is 1"));
    CHECK(refused(grpo::per_token{grpo::dpo{.beta = -2}}, "dpo.beta is -2"));
    CHECK(refused(grpo::online_dpo(grpo::dpo{.beta = -2}), "dpo.beta is -2"));
    CHECK(refused(grpo::odds_ratio{.certainty = 0}, "odds_ratio.certainty is 0"));

    std::vector<double> out(1, 5.0);
    const std::vector<int> cu{0, 2, 3};
    const std::vector<double> logp{-1, -2, -3};
    CHECK(contains(errors::sentence([&] { grpo::sequence_logp(grpo::ragged(cu), logp, out); }), "out has 1 entries"));
    CHECK(out[0] == 5.0);
    CHECK(contains(errors::sentence([&] { grpo::spread(grpo::ragged(cu), out, out); }), "slope has 1 entries"));
    std::vector<std::int64_t> work(3);
    CHECK(contains(errors::sentence([&] { grpo::aot_match(logp, logp, logp, logp, work, out); }), "out has 1 entries"));
    std::vector<double> three(3);
    CHECK(contains(errors::sentence([&] { grpo::aot_match(logp, logp, logp, logp, work, three); }), "work has 3 entries"));
    const std::vector<std::int64_t> far{0, 1, 3};
    CHECK(contains(errors::sentence([&] { grpo::gather(far, logp, three); }), "order holds 3, but there are 3"));
}
