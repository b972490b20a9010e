// What the tests of terms share: the aggregation that a test vector names, and one loss evaluated on its inputs.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <grpo/grpo.hpp>

#include <support/vectors.hpp>

namespace vectors {

// "inf" stands for no bound.
inline double bound_of(double x) { return std::isinf(x) ? grpo::math::unbounded : x; }

inline grpo::safety_bound safety_bound_of(const test_case& c, const char* bound = "log_ratio_bound") {
    grpo::safety_bound b;
    b.bound = bound_of(c.number(bound, 20.0));
    const bool straight = c.has_parameter("bound_gradient") && c.text("bound_gradient") == "straight_through";
    b.gradient = straight ? grpo::outside::straight_through : grpo::outside::zero;
    return b;
}

// Sequences, mask and aggregation of a case. Keeps what the aggregation's views point to.
class layout {
public:
    explicit layout(const test_case& c) : cu_(c.input<std::int64_t>("cu_seqlens")) {
        const std::size_t tokens = cu_.empty() ? 0 : static_cast<std::size_t>(cu_.back());
        mask_ = c.has("mask") ? c.input<std::uint8_t>("mask") : std::vector<std::uint8_t>(tokens, 1);
        if (c.has("group_offsets")) count_rollout_tokens(c.input<std::int64_t>("group_offsets"));
        read_aggregation(c);
    }
    layout(const layout&) = delete;
    layout& operator=(const layout&) = delete;

    auto shape() const { return grpo::ragged(cu_).where(mask_); }
    grpo::aggregation over() const { return over_; }
    double denominator() const { return denominator_; }
    std::size_t tokens() const { return mask_.size(); }
    const std::vector<std::int64_t>& cu() const { return cu_; }
    const std::vector<std::uint8_t>& mask() const { return mask_; }

private:
    void count_rollout_tokens(const std::vector<std::int64_t>& groups) {
        const auto plain = shape();
        rollout_tokens_.assign(cu_.size() - 1, 0);
        for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
            std::int64_t n = 0;
            for (std::int64_t s = groups[g]; s < groups[g + 1]; ++s) n += plain.count_active(s);
            for (std::int64_t s = groups[g]; s < groups[g + 1]; ++s) rollout_tokens_[static_cast<std::size_t>(s)] = n;
            rollouts_ += 1;
            nonempty_rollouts_ += n > 0 ? 1 : 0;
        }
    }

    void read_aggregation(const test_case& c) {
        const std::string name = c.text("aggregation");
        const bool empty = c.has_parameter("count_empty") && c.flag("count_empty");
        if (name == "token_mean" || name == "token_mean_global") over_ = grpo::aggregation::token_mean();
        else if (name == "sequence_mean_token_mean") over_ = grpo::aggregation::sequence_mean(empty);
        else if (name == "sequence_mean_token_sum") over_ = grpo::aggregation::sequence_sum(empty);
        else if (name == "constant_length") over_ = grpo::aggregation::constant_length(c.number("length"));
        else if (name == "token_sum") over_ = grpo::aggregation::token_sum();
        else if (name == "sum_norm") over_ = grpo::aggregation::sum_over(c.number("norm"));
        else if (name == "length_power") over_ = grpo::aggregation::length_power(c.number("alpha"), empty);
        else if (name == "rollout_mean") over_ = rollout_mean(empty);
        else if (name != "positive_token_mean") stop(c.id() + ": unknown aggregation " + name);
        denominator_ = over_.denominator(grpo::count(shape()));
        if (name == "token_mean_global") denominator_ = c.number("denominator");
        if (name == "positive_token_mean") count_positive(c.input<int>("positive"));
    }

    grpo::aggregation rollout_mean(bool count_empty) const {
        return grpo::aggregation::rollout_mean(rollout_tokens_, count_empty ? rollouts_ : nonempty_rollouts_);
    }

    // The denominator of a mean over the tokens of positive sequences.
    void count_positive(const std::vector<int>& positive) {
        denominator_ = 0;
        for (std::size_t s = 0; s < positive.size(); ++s) {
            if (positive[s] != 0) denominator_ += static_cast<double>(shape().count_active(static_cast<std::int64_t>(s)));
        }
    }

    std::vector<std::int64_t> cu_;
    std::vector<std::uint8_t> mask_;
    std::vector<std::int64_t> rollout_tokens_;
    std::int64_t rollouts_ = 0;
    std::int64_t nonempty_rollouts_ = 0;
    grpo::aggregation over_ = grpo::aggregation::token_mean();
    double denominator_ = 0;
};

// One entry per token: the per-token input, or the per-sequence one spread over the sequence; 0 where neither is given.
template <class T>
std::vector<T> spread(const test_case& c, const layout& l, const std::string& by_token, const std::string& by_sequence) {
    if (c.has(by_token)) return c.input<T>(by_token);
    std::vector<T> out(l.tokens(), T(0));
    if (!c.has(by_sequence)) return out;
    const std::vector<T> rows = c.input<T>(by_sequence);
    for (std::size_t s = 0; s < rows.size(); ++s) {
        for (std::int64_t t = l.cu()[s]; t < l.cu()[s + 1]; ++t) out[static_cast<std::size_t>(t)] = rows[s];
    }
    return out;
}

// Every input a policy or KL term may read, as type T; absent ones are NaN and must not matter.
template <class T>
struct policy_inputs {
    std::vector<T> logp, logp_old, logp_ref, logp_rollout, advantage, weight, keep, label;

    policy_inputs(const test_case& c, const layout& l)
        : logp(of(c, l, "logp")), logp_old(of(c, l, "logp_old")), logp_ref(of(c, l, "logp_ref")),
          logp_rollout(of(c, l, "logp_rollout")), advantage(spread<T>(c, l, "advantage_token", "advantage")),
          weight(of(c, l, "weight")), keep(l.tokens(), std::numeric_limits<T>::quiet_NaN()),
          label(spread<T>(c, l, "label", c.has("positive") ? "positive" : "correct")) {}

    auto batch(const layout& l) const {
        return grpo::batch(l.shape(), grpo::logp(logp), grpo::logp_old(logp_old), grpo::logp_ref(logp_ref),
                           grpo::logp_rollout(logp_rollout), grpo::advantage(advantage), grpo::weight(weight),
                           grpo::keep(keep), grpo::label(label));
    }

private:
    static std::vector<T> of(const test_case& c, const layout& l, const char* name) {
        if (c.has(name)) return c.input<T>(name);
        return std::vector<T>(l.tokens(), std::numeric_limits<T>::quiet_NaN());
    }
};

// Value and gradient of a loss.
struct outcome {
    double value = 0;
    std::vector<double> gradient;
    grpo::loss_result result;
};

template <class T, class Term>
outcome evaluate(const Term& term, const layout& l, const policy_inputs<T>& in) {
    std::vector<T> g(l.tokens(), T(7));
    outcome out;
    const grpo::objective loss{term, l.over()};
    out.result = grpo::evaluate(grpo::serial{}, loss, in.batch(l), l.denominator(), grpo::d_logp(g));
    out.value = out.result.loss(l.denominator());
    out.gradient.assign(g.begin(), g.end());
    return out;
}

}  // namespace vectors
