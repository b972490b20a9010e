// Rollout correction against tests/vectors/correction.json, and what the requirements say about it.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/correction.hpp>
#include <grpo/grpo.hpp>

#include "support/vectors.hpp"

namespace {

using grpo::correction;
using grpo::correction_level;
using grpo::rejection;
using grpo::rejection_level;
using mask_t = std::vector<std::uint8_t>;
using offsets_t = std::vector<std::int64_t>;

correction_level level_of(const std::string& name) {
    if (name == "token") return correction_level::token;
    if (name == "sequence") return correction_level::sequence;
    if (name == "geometric") return correction_level::geometric;
    vectors::stop("unknown level " + name);
}

rejection_level rejection_level_of(const std::string& name) {
    if (name == "token") return rejection_level::token;
    if (name == "sequence_sum") return rejection_level::sequence_sum;
    if (name == "sequence_mean") return rejection_level::sequence_mean;
    if (name == "sequence_max") return rejection_level::sequence_max;
    vectors::stop("unknown level " + name);
}

// The correction of a weight case, or of the weight inside a loss case ("clip_" in front, "band_" before the bounds).
correction correction_of(const vectors::test_case& c, const std::string& method, const std::string& prefix = "") {
    correction rule;
    if (method == "seq_mask_tis") {
        rule = correction::seq_mask_tis(c.number(prefix + "low"), c.number(prefix + "high"));
    } else {
        const correction_level level = level_of(c.text("level"));
        if (method == "tis") {
            rule = correction::tis(c.number("cap"), level);
        } else if (method == "tis_band") {
            rule = correction::band(c.number(prefix + "low"), c.number(prefix + "high"), level);
        } else if (method == "icepop") {
            rule = correction::icepop(c.number(prefix + "low"), c.number(prefix + "high"), level);
        } else {
            vectors::stop("unknown correction " + method);
        }
        if (c.flag("normalise")) rule = rule.normalised();
    }
    rule.bound = c.number("log_weight_bound");
    return rule;
}

rejection rejection_of(const vectors::test_case& c, const std::string& prefix = "") {
    const std::string stat = c.text("stat");
    const rejection_level level = rejection_level_of(c.text("level"));
    const double high = c.number(prefix + "high");
    rejection rule;
    if (stat == "k1") {
        rule = rejection::k1(level, c.number("low"), high);
    } else if (stat == "k2") {
        rule = rejection::k2(level, high);
    } else if (stat == "k3") {
        rule = rejection::k3(level, high);
    } else {
        vectors::stop("unknown statistic " + stat);
    }
    rule.bound = c.number("log_weight_bound");
    return rule;
}

template <class T>
struct inputs {
    std::vector<T> old;
    std::vector<T> rollout;
    mask_t mask;
    offsets_t cu;

    explicit inputs(const vectors::test_case& c)
        : old(c.input<T>("logp_old")), rollout(c.input<T>("logp_rollout")), mask(c.input<std::uint8_t>("mask")),
          cu(c.input<std::int64_t>("cu_seqlens")) {}
    auto shape() const { return grpo::ragged(cu).where(mask); }
    auto batch() const { return grpo::batch(shape(), grpo::logp_old(old), grpo::logp_rollout(rollout)); }
    std::size_t rows() const { return cu.size() - 1; }
};

template <class T>
void check_weights(const vectors::test_case& c) {
    const inputs<T> x(c);
    const double tolerance = c.tolerance<T>();
    const correction rule = correction_of(c, c.method());
    std::vector<T> weight(x.old.size(), T(7));
    const auto r = grpo::correction_weights(x.batch(), rule, weight);
    CHECK(vectors::difference(weight, c.expected<double>("weight"), tolerance) == "");
    CHECK(static_cast<double>(r.tokens) == c.expected_number("tokens"));
    CHECK(static_cast<double>(r.outside) == c.expected_number("outside_tokens"));
    CHECK(static_cast<double>(r.missing) == c.expected_number("missing_tokens"));
    CHECK(vectors::close(r.weight, c.expected_number("weight_sum"), tolerance));
    CHECK(vectors::close(r.weight_square, c.expected_number("weight_square_sum"), tolerance));
    CHECK(r.nonfinite == 0);
    if (rule.level == correction_level::token) return;
    std::vector<T> per_row(x.rows(), T(7));
    const auto s = grpo::correction_weights_by_sequence(grpo::serial{}, x.batch(), rule, per_row);
    CHECK(s.weight == r.weight);
    for (std::size_t row = 0; row < x.rows(); ++row) {
        bool any = false;
        for (std::size_t t = static_cast<std::size_t>(x.cu[row]); t < static_cast<std::size_t>(x.cu[row + 1]); ++t) {
            if (!x.mask[t]) continue;
            any = true;
            CHECK(vectors::close(static_cast<double>(per_row[row]), static_cast<double>(weight[t]), tolerance));
        }
        if (!any) CHECK(per_row[row] == T(0));
    }
}

template <class T>
void check_rejection(const vectors::test_case& c, const rejection& rule) {
    const inputs<T> x(c);
    mask_t keep(x.mask.size(), 9);
    const auto check = [&](const grpo::rejection_result& r) {
        CHECK(vectors::difference(keep, c.expected<double>("keep"), 0.0) == "");
        CHECK(static_cast<double>(r.tokens) == c.expected_number("tokens"));
        CHECK(static_cast<double>(r.sequences) == c.expected_number("sequences"));
        CHECK(static_cast<double>(r.rejected_tokens) == c.expected_number("rejected_tokens"));
        CHECK(static_cast<double>(r.rejected_sequences) == c.expected_number("rejected_sequences"));
        CHECK(r.nonfinite == 0);
    };
    check(grpo::reject(x.batch(), rule, keep));
    mask_t own = x.mask;  // the keep mask may be the shape's own
    grpo::reject(grpo::batch(grpo::ragged(x.cu).where(own), grpo::logp_old(x.old), grpo::logp_rollout(x.rollout)), rule,
                 own);
    CHECK(own == keep);
    if (!c.expects("statistic")) return;
    std::vector<double> statistic(rule.level == rejection_level::token ? x.mask.size() : x.rows());
    check(grpo::reject(grpo::serial{}, x.batch(), rule, keep, statistic));
    CHECK(vectors::difference(statistic, c.expected<double>("statistic"), c.tolerance<T>()) == "");
}

template <class T>
void check_metrics(const vectors::test_case& c) {
    const inputs<T> x(c);
    const auto m = grpo::measure_mismatch(x.batch(), {c.number("low"), c.number("high"), c.number("log_weight_bound")});
    const double n = static_cast<double>(m.tokens);
    const double ess = m.effective_sample_size();
    const struct {
        const char* name;
        double got;
    } table[] = {{"tokens", n},
                 {"sequences", static_cast<double>(m.sequences)},
                 {"kl_sum", m.kl},
                 {"k3_sum", m.k3},
                 {"weight_sum", m.weight},
                 {"weight_square_sum", m.weight_square},
                 {"absolute_log_sum", m.absolute_log},
                 {"probability_error_sum", m.error},
                 {"perplexity_old_sum", m.perplexity_old},
                 {"perplexity_rollout_sum", m.perplexity_rollout},
                 {"log_perplexity_ratio_sum", m.log_perplexity_ratio},
                 {"sequence_weight_square_sum", m.sequence_weight_square},
                 {"ess", ess},
                 {"ess_fraction", n > 0 ? ess / n : 0.0},
                 {"outside_low", static_cast<double>(m.outside_low)},
                 {"outside_high", static_cast<double>(m.outside_high)},
                 {"weight_min", m.smallest_weight},
                 {"weight_max", m.largest_weight},
                 {"absolute_log_max", m.largest_absolute_log},
                 {"chi2_token", m.chi2_token()},
                 {"chi2_sequence", m.chi2_sequence()},
                 {"weight_std", m.weight_deviation()}};
    std::size_t seen = 0;
    for (const auto& row : table) {
        if (!c.expects(row.name)) continue;
        ++seen;
        INFO(row.name);
        CHECK(vectors::close(row.got, c.expected_number(row.name), c.tolerance<T>()));
    }
    CHECK(seen == c.data().at("expected").size());
}

grpo::aggregation aggregation_of(const vectors::test_case& c) {
    const std::string name = c.text("aggregation");
    if (name == "token_mean") return grpo::aggregation::token_mean();
    if (name == "sequence_mean_token_mean") return grpo::aggregation::sequence_mean(c.flag("count_empty"));
    vectors::stop("unknown aggregation " + name);
}

grpo::clipped clip_of(const vectors::test_case& c) {
    return {.low = c.number("low"), .high = c.number("high"), .bound = {c.number("log_ratio_bound")}};
}

template <class T, class Objective, class Batch>
void check_loss(const vectors::test_case& c, const Objective& loss, const Batch& b) {
    const double n = loss.over.denominator(grpo::count(b.layout));
    std::vector<T> gradient(c.input<T>("logp").size(), T(9));
    const auto r = grpo::evaluate(grpo::serial{}, loss, b, n, grpo::d_logp(gradient));
    CHECK(vectors::close(r.loss(n), c.value(), c.tolerance<T>()));
    CHECK(vectors::difference(gradient, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
}

template <class T>
void check_corrected_loss(const vectors::test_case& c) {
    const inputs<T> x(c);
    const std::vector<T> logp = c.input<T>("logp");
    const std::vector<T> advantage = c.input<T>("advantage");
    const auto over = aggregation_of(c);
    const auto given = [&](const auto& shape, const auto& weight) {
        return grpo::batch(shape, grpo::logp(logp), grpo::logp_old(x.old), grpo::advantage(grpo::by_sequence(advantage)),
                           grpo::weight(weight));
    };
    const std::string method = c.method();
    if (method == "bypass_clip") {
        check_loss<T>(c, grpo::objective{clip_of(c), over},
                      grpo::batch(x.shape(), grpo::logp(logp), grpo::logp_old(x.rollout),
                                  grpo::advantage(grpo::by_sequence(advantage))));
    } else if (method == "bypass_reinforce") {
        // The weight is recomputed from the present policy before every step.
        correction rule = correction::tis(1e30);
        rule.bound = c.number("log_ratio_bound");
        std::vector<T> weight(logp.size());
        grpo::correction_weights(grpo::batch(x.shape(), grpo::logp_old(logp), grpo::logp_rollout(x.rollout)), rule, weight);
        check_loss<T>(c, grpo::objective{grpo::rollout_weighted{} * grpo::reinforce{}, over}, given(x.shape(), weight));
    } else if (method == "clip_reject") {
        mask_t keep(x.mask.size());
        grpo::reject(x.batch(), rejection_of(c, "band_"), keep);
        const auto loss = grpo::objective{grpo::rollout_weighted{} * clip_of(c), over};
        if (c.text("denominator_counts") == "original") {
            check_loss<T>(c, loss, given(x.shape(), keep));
        } else {
            check_loss<T>(c, grpo::objective{clip_of(c), over}, given(grpo::ragged(x.cu).where(keep), keep));
        }
    } else {
        const correction rule = correction_of(c, method.substr(5), "band_");
        const auto loss = grpo::objective{grpo::rollout_weighted{} * clip_of(c), over};
        std::vector<T> weight(logp.size());
        grpo::correction_weights(x.batch(), rule, weight);
        check_loss<T>(c, loss, given(x.shape(), weight));
        if (rule.level == correction_level::token) return;
        std::vector<T> per_row(x.rows());
        grpo::correction_weights_by_sequence(x.batch(), rule, per_row);
        check_loss<T>(c, loss, given(x.shape(), grpo::by_sequence(per_row)));
    }
}

template <class T>
void check_case(const vectors::test_case& c) {
    const std::string m = c.method();
    if (m == "tis" || m == "tis_band" || m == "icepop" || m == "seq_mask_tis") {
        check_weights<T>(c);
    } else if (m == "reject") {
        check_rejection<T>(c, rejection_of(c));
    } else if (m == "veto") {
        check_rejection<T>(c, rejection::veto(c.number("threshold")));
    } else if (m == "off_policy_metrics") {
        check_metrics<T>(c);
    } else if (m == "bypass_clip" || m == "bypass_reinforce" || m == "clip_tis" || m == "clip_icepop" ||
               m == "clip_reject") {
        check_corrected_loss<T>(c);
    } else {
        FAIL("no test for the method " << m);
    }
}

// Two sequences with a hole each, and everything that correction.hpp can say about them.
struct everything {
    std::vector<std::vector<float>> weights;
    std::vector<mask_t> keeps;
    std::vector<double> numbers;
    bool operator==(const everything&) const = default;
};

const correction_level levels[] = {correction_level::token, correction_level::sequence, correction_level::geometric};
const rejection_level places[] = {rejection_level::token, rejection_level::sequence_sum, rejection_level::sequence_mean,
                                  rejection_level::sequence_max};

template <class Batch>
everything run_all(const Batch& b) {
    everything out;
    const std::size_t n = static_cast<std::size_t>(b.layout.extent());
    const auto add = [&](const correction& rule) {
        std::vector<float> w(n);
        const auto r = grpo::correction_weights(b, rule, w);
        out.weights.push_back(w);
        out.numbers.insert(out.numbers.end(), {r.weight, r.weight_square, r.sequence_mean, double(r.tokens), double(r.outside),
                                               double(r.missing), double(r.nonfinite), double(r.first_nonfinite)});
    };
    for (const correction_level level : levels) {
        add(correction::tis(1.5, level).normalised());
        add(correction::icepop(0.5, 1.5, level));
    }
    add(correction::seq_mask_tis(0.9, 1.2));
    for (const rejection_level level : places) {
        for (const rejection& rule : {rejection::k1(level, 0.8, 1.25), rejection::k3(level, 0.05),
                                      rejection::ratio(level, 0.8, 1.25), rejection::log_weight(level, -0.1, 0.5)}) {
            mask_t keep(n, 9);
            std::vector<double> s(level == rejection_level::token ? n : static_cast<std::size_t>(b.layout.rows()));
            const auto r = grpo::reject(b, rule, keep, s);
            out.keeps.push_back(keep);
            out.numbers.insert(out.numbers.end(), s.begin(), s.end());
            out.numbers.insert(out.numbers.end(), {double(r.rejected_tokens), double(r.missing), double(r.nonfinite)});
        }
    }
    const auto m = grpo::measure_mismatch(b);
    out.numbers.insert(out.numbers.end(), {m.kl, m.k3, m.weight, m.weight_square, m.perplexity_old, m.perplexity_rollout,
                                           m.sequence_weight_square, m.largest_weight, m.smallest_weight, double(m.tokens)});
    return out;
}

const float nan_f = std::numeric_limits<float>::quiet_NaN();
const float inf_f = std::numeric_limits<float>::infinity();

struct small {
    std::vector<float> old{-1.0f, -9.0f, -0.5f, -2.0f, -1.5f, -9.0f, -0.25f};
    std::vector<float> rollout{-1.25f, -9.0f, -0.375f, -1.0f, -1.75f, -9.0f, -1.0f};
    mask_t mask{1, 0, 1, 1, 1, 0, 1};
    offsets_t cu{0, 3, 7};
    auto batch() const {
        return grpo::batch(grpo::ragged(cu).where(mask), grpo::logp_old(old), grpo::logp_rollout(rollout));
    }
};

}  // namespace

TEST_CASE("vectors: rollout correction") {
    for (const vectors::test_case& c : vectors::load("correction")) {
        INFO(c.id());
        check_case<double>(c);
        check_case<float>(c);
    }
}

TEST_CASE("R1.12 masked positions may hold anything") {
    const small clean;
    const everything expected = run_all(clean.batch());
    for (const float garbage : {nan_f, inf_f, -inf_f, 1e30f}) {
        small dirty;
        for (const std::size_t t : {1u, 5u}) dirty.old[t] = dirty.rollout[t] = garbage;
        CHECK(run_all(dirty.batch()) == expected);
        dirty.rollout = clean.rollout;
        CHECK(run_all(dirty.batch()) == expected);
    }
}

TEST_CASE("R1.13 masked columns to the left and right change no bit") {
    const std::vector<float> old{-1.0f, -0.5f, -2.0f, -1.5f};
    const std::vector<float> rollout{-1.25f, -0.375f, -1.0f, -1.75f};
    const everything narrow =
        run_all(grpo::batch(grpo::padded(2, 2), grpo::logp_old(old), grpo::logp_rollout(rollout)));
    std::vector<float> wide_old(12, nan_f);
    std::vector<float> wide_rollout(12, 1e30f);
    mask_t mask(12, 0);
    const std::size_t at[] = {1, 3, 7, 10};
    for (std::size_t k = 0; k < 4; ++k) {
        wide_old[at[k]] = old[k];
        wide_rollout[at[k]] = rollout[k];
        mask[at[k]] = 1;
    }
    everything wide = run_all(
        grpo::batch(grpo::padded(2, 6).where(mask), grpo::logp_old(wide_old), grpo::logp_rollout(wide_rollout)));
    for (std::size_t k = 0; k < wide.weights.size(); ++k) {
        for (std::size_t t = 0; t < 4; ++t) CHECK(wide.weights[k][at[t]] == narrow.weights[k][t]);
        for (std::size_t t = 0; t < 12; ++t) {
            if (!mask[t]) CHECK(wide.weights[k][t] == 0.0f);
        }
    }
    for (std::size_t k = 0; k < wide.keeps.size(); ++k) {
        for (std::size_t t = 0; t < 4; ++t) CHECK(wide.keeps[k][at[t]] == narrow.keeps[k][t]);
    }
}

TEST_CASE("R1.16 a non-finite log-probability is counted with its index and stays in its sequence") {
    const small clean;
    small bad;
    bad.old[2] = nan_f;
    std::vector<float> w(7), expected(7);
    for (const correction_level level : levels) {
        const auto rule = correction::tis(1.5, level).normalised();
        const auto r = grpo::correction_weights(bad.batch(), rule, w);
        CHECK(r.nonfinite == 1);
        CHECK(r.first_nonfinite == 2);
        CHECK(grpo::detail::is_nan(w[2]));
        for (std::size_t t = 3; t < 7; ++t) CHECK_FALSE(grpo::detail::is_nonfinite(w[t]));
        // The sequence without it is weighed as if it were alone.
        mask_t alone = clean.mask;
        alone[0] = alone[1] = alone[2] = 0;
        if (level == correction_level::token) alone[0] = 1;
        grpo::correction_weights(grpo::batch(grpo::ragged(clean.cu).where(alone), grpo::logp_old(clean.old),
                                             grpo::logp_rollout(clean.rollout)),
                                 rule, expected);
        for (std::size_t t = 3; t < 7; ++t) CHECK(w[t] == expected[t]);
    }
    mask_t keep(7);
    for (const rejection_level level : places) {
        const auto r = grpo::reject(bad.batch(), rejection::k3(level, 1e6), keep);
        CHECK(r.nonfinite == 1);
        CHECK(r.first_nonfinite == 2);
        CHECK(keep[2] == 0);
        CHECK(keep[0] == (level == rejection_level::token ? 1 : 0));
        CHECK(keep[3] == 1);
    }
    const auto m = grpo::measure_mismatch(bad.batch());
    CHECK(m.nonfinite == 1);
    CHECK(m.first_nonfinite == 2);
    CHECK(m.tokens == 4);
    CHECK_FALSE(grpo::detail::is_nonfinite(m.weight));
    small infinite;
    infinite.rollout[3] = -inf_f;
    const auto r = grpo::correction_weights(infinite.batch(), correction::tis(2.0), w);
    CHECK(r.nonfinite == 1);
    CHECK(r.first_nonfinite == 3);
    CHECK(w[3] == 2.0f);
}

TEST_CASE("R1.17 a missing rollout log-probability has weight 1 and is counted") {
    small x;
    x.rollout[3] = nan_f;
    std::vector<float> w(7);
    for (const correction& rule : {correction::tis(1.5), correction::icepop(0.5, 1.5), correction::band(0.9, 1.1)}) {
        const auto r = grpo::correction_weights(x.batch(), rule, w);
        CHECK(w[3] == 1.0f);
        CHECK(r.missing == 1);
        CHECK(r.nonfinite == 0);
    }
    // In a product over the sequence it is the factor 1.
    const auto sequence = correction::tis(1e10, correction_level::sequence);
    grpo::correction_weights(x.batch(), sequence, w);
    CHECK(vectors::close(static_cast<double>(w[4]), std::exp(0.25 + 0.75), 1e-6));
    mask_t keep(7);
    CHECK(grpo::reject(x.batch(), rejection::k3(rejection_level::token, 0.0), keep).missing == 1);
    CHECK(keep[3] == 1);
    const auto m = grpo::measure_mismatch(x.batch());
    CHECK(m.missing == 1);
    CHECK(m.tokens == 5);
    CHECK(vectors::close(m.perplexity_rollout, std::exp((1.25 + 0.375) / 2) + std::exp((2.0 + 1.75 + 1.0) / 3), 1e-12));
}

TEST_CASE("k3 of weights near 1 keeps its digits in float") {
    // e^x - 1 - x by its series, where e^x - 1 less x would cancel all but three digits.
    const double x = std::ldexp(1.0, -12);
    const double k3 = x * x / 2 * (1 + x / 3 * (1 + x / 4));
    const std::vector<float> old{-1.0f, -0.5f}, rollout{-1.0f - static_cast<float>(x), -0.5f - static_cast<float>(x)};
    const grpo::batch batch(grpo::padded(1, 2), grpo::logp_old(old), grpo::logp_rollout(rollout));
    CHECK(vectors::close(grpo::measure_mismatch(batch).k3 / (2 * k3), 1.0, 1e-6));
    mask_t keep(2);
    std::vector<double> mean(1);
    grpo::reject(batch, rejection::k3(rejection_level::sequence_mean, 1.0), keep, mean);
    CHECK(vectors::close(mean[0] / k3, 1.0, 1e-6));
}

TEST_CASE("R1.33 each rule treats the same weight in its own way, and the outside fraction and ESS follow") {
    const std::vector<double> old{0.0, 0.0, 0.0, 0.0};
    const std::vector<double> rollout{-std::log(4.0), 0.0, std::log(4.0), 0.0};  // w = 4, 1, 1/4, 1
    const offsets_t cu{0, 2, 4};
    const auto b = grpo::batch(grpo::ragged(cu), grpo::logp_old(old), grpo::logp_rollout(rollout));
    std::vector<double> w(4);
    const auto is = [&](std::vector<double> expected) { return vectors::difference(w, expected, 1e-12); };
    auto r = grpo::correction_weights(b, correction::tis(2.0), w);
    CHECK(is({2.0, 1.0, 0.25, 1.0}) == "");
    CHECK(r.outside_fraction() == 0.25);
    CHECK(vectors::close(r.effective_sample_size(), 4.25 * 4.25 / 6.0625, 1e-12));
    grpo::correction_weights(b, correction::band(0.5, 2.0), w);
    CHECK(is({2.0, 1.0, 0.5, 1.0}) == "");
    r = grpo::correction_weights(b, correction::icepop(0.5, 2.0), w);
    CHECK(is({0.0, 1.0, 0.0, 1.0}) == "");
    CHECK(r.outside == 2);
    grpo::correction_weights(b, correction::sequence_mask(3.0), w);
    CHECK(is({0.0, 0.0, 0.25, 0.25}) == "");
    grpo::correction_weights(b, correction::seq_mask_tis(0.6, 2.5), w);  // geometric weights 2 and 1/2
    CHECK(is({4.0, 1.0, 0.0, 0.0}) == "");
    grpo::correction_weights(b, correction::tis(100.0, correction_level::geometric), w);
    CHECK(is({2.0, 2.0, 0.5, 0.5}) == "");
    grpo::correction_weights(b, correction::tis(2.0).normalised(), w);
    CHECK(is({2.0 / 1.0625, 1.0 / 1.0625, 0.25 / 1.0625, 1.0 / 1.0625}) == "");
    // A bound is inside its band.
    grpo::correction_weights(b, correction::icepop(1.0, 1.0), w);
    CHECK(is({0.0, 1.0, 0.0, 1.0}) == "");
}

TEST_CASE("the two signs of k1 keep opposite sides of an asymmetric band") {
    const std::vector<double> old{0.0, 0.0};
    const std::vector<double> rollout{-1.0, 1.0};  // log w = 1, -1
    const offsets_t cu{0, 2};
    const auto b = grpo::batch(grpo::ragged(cu), grpo::logp_old(old), grpo::logp_rollout(rollout));
    mask_t keep(2);
    grpo::reject(b, rejection::k1(rejection_level::token, 0.9, std::exp(2.0)), keep);
    CHECK(keep == mask_t{0, 1});
    grpo::reject(b, rejection::log_weight(rejection_level::token, -0.1, 2.0), keep);
    CHECK(keep == mask_t{1, 0});
    grpo::reject(b, rejection::ratio(rejection_level::token, 0.9, std::exp(2.0)), keep);
    CHECK(keep == mask_t{1, 0});
    // Over the sequence the ratio is aggregated in log space: product, geometric mean, largest.
    std::vector<double> s(1);
    grpo::reject(b, rejection::ratio(rejection_level::sequence_sum, 0.9, 1.1), keep, s);
    CHECK(s[0] == 1.0);
    grpo::reject(b, rejection::ratio(rejection_level::sequence_max, 0.9, 1.1), keep, s);
    CHECK(vectors::close(s[0], std::exp(1.0), 1e-15));
    CHECK(keep == mask_t{0, 0});
    grpo::reject(b, rejection::logp_error(2.8), keep, s);
    CHECK(vectors::close(s[0], std::exp(1.0), 1e-15));
    CHECK(keep == mask_t{1, 1});
}

TEST_CASE("rules chain: the second sees what the first kept") {
    const small x;
    mask_t first(7), both(7);
    grpo::reject(x.batch(), rejection::k1(rejection_level::token, 0.5, 2.0), first);
    CHECK(first == mask_t{1, 0, 1, 0, 1, 0, 0});
    grpo::reject(grpo::batch(grpo::ragged(x.cu).where(first), grpo::logp_old(x.old), grpo::logp_rollout(x.rollout)),
                 rejection::ratio(rejection_level::sequence_max, 0.0, 1.26), both);
    CHECK(both == mask_t{0, 0, 0, 0, 0, 0, 0});
    grpo::reject(grpo::batch(grpo::ragged(x.cu).where(first), grpo::logp_old(x.old), grpo::logp_rollout(x.rollout)),
                 rejection::ratio(rejection_level::sequence_mean, 0.0, 1.2), both);
    CHECK(both == mask_t{1, 0, 1, 0, 0, 0, 0});
}

TEST_CASE("R1.27 parts of a batch add up, and share one normaliser") {
    const small x;
    const auto part = [&](std::size_t row) {
        const std::size_t begin = static_cast<std::size_t>(x.cu[row]);
        const std::int64_t n = x.cu[row + 1] - x.cu[row];
        return grpo::batch(grpo::padded(1, n).where(grpo::view<const std::uint8_t>(&x.mask[begin], n)),
                           grpo::logp_old(grpo::view<const float>(&x.old[begin], n)),
                           grpo::logp_rollout(grpo::view<const float>(&x.rollout[begin], n)));
    };
    for (const correction_level level : levels) {
        std::vector<float> whole(7), a(3), b(4);
        const auto all = grpo::correction_weights(x.batch(), correction::tis(1.5, level).normalised(), whole);
        const auto sum = grpo::correction_weights(part(0), correction::tis(1.5, level), a) +
                         grpo::correction_weights(part(1), correction::tis(1.5, level), b);
        grpo::divide_weights(grpo::serial{}, part(0).layout, sum.mean(level), a);
        grpo::divide_weights(grpo::serial{}, part(1).layout, sum.mean(level), b);
        a.insert(a.end(), b.begin(), b.end());
        CHECK(a == whole);
        CHECK(sum.tokens == all.tokens);
        CHECK(sum.outside == all.outside);
    }
    const auto m = grpo::measure_mismatch(x.batch());
    const auto sum = grpo::measure_mismatch(part(0)) + grpo::measure_mismatch(part(1));
    CHECK(std::memcmp(&m, &sum, sizeof m) == 0);
}

TEST_CASE("R1.18 nothing active: zeros and empty counts") {
    small x;
    x.mask.assign(7, 0);
    std::vector<float> w(7, 3.0f);
    const auto r = grpo::correction_weights(x.batch(), correction::tis().normalised(), w);
    CHECK(w == std::vector<float>(7, 0.0f));
    CHECK(r.tokens == 0);
    CHECK(r.effective_sample_size() == 0.0);
    CHECK(r.outside_fraction() == 0.0);
    const auto m = grpo::measure_mismatch(x.batch());
    CHECK(m.chi2_token() == 0.0);
    CHECK(m.chi2_sequence() == 0.0);
    CHECK(m.weight_deviation() == 0.0);
    CHECK(m.per_token(m.kl) == 0.0);
}

TEST_CASE("R1.41 token weights may overwrite logp_rollout") {
    small x;
    std::vector<float> expected(7);
    grpo::correction_weights(x.batch(), correction::tis(1.5), expected);
    const auto r = grpo::correction_weights(x.batch(), correction::tis(1.5), x.rollout);
    CHECK(x.rollout == expected);
    CHECK(r.tokens == 5);
}

TEST_CASE("sizes and ranges are checked before anything is written") {
    const small x;
    std::vector<float> w(7, 3.0f), short_w(6, 3.0f);
    mask_t keep(7, 9);
    const auto b = x.batch();
    CHECK_THROWS_WITH_AS(grpo::correction_weights(b, correction::tis(), short_w),
                         "grpo::correction_weights: weight has 6 entries, but the batch has 7 positions", grpo::error);
    CHECK_THROWS_AS(grpo::correction_weights(b, correction::band(2.0, 1.0), w), grpo::error);
    CHECK_THROWS_AS(grpo::correction_weights(b, correction::band(-1.0, 1.0), w), grpo::error);
    CHECK_THROWS_AS(grpo::correction_weights(
                        b, correction{.action = grpo::out_of_band::truncate, .band_level = correction_level::geometric}, w),
                    grpo::error);
    CHECK_THROWS_AS(grpo::correction_weights(b, correction{.bound = -1.0}, w), grpo::error);
    CHECK_THROWS_AS(grpo::correction_weights_by_sequence(b, correction::tis(), short_w), grpo::error);
    CHECK_THROWS_AS(grpo::correction_weights_by_sequence(b, correction::sequence_mask(), short_w), grpo::error);
    CHECK_THROWS_AS(grpo::divide_weights(grpo::serial{}, b.layout, 0.0, w), grpo::error);
    CHECK_THROWS_AS(grpo::reject(b, rejection::k2(rejection_level::token, -1.0), keep), grpo::error);
    CHECK_THROWS_AS(grpo::reject(b, rejection{}, keep, short_w), grpo::error);
    CHECK_THROWS_AS(grpo::measure_mismatch(b, {.low = 3.0, .high = 2.0}), grpo::error);
    CHECK(w == std::vector<float>(7, 3.0f));
    CHECK(short_w == std::vector<float>(6, 3.0f));
    CHECK(keep == mask_t(7, 9));
}
