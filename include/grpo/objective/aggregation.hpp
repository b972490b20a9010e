// Aggregation: how token losses become one number.
//
//   loss = Σ_i c_i Σ_t m_it x_it / denominator        weight = Σ_i w_i
//
// c_i is what row i's tokens are multiplied by; w_i is what row i adds to the weight. Sums and weights of parts of a
// batch add up, so loss = Σ sum / Σ weight whatever the split into micro-batches or ranks (R1.26-R1.29). The caller
// passes the denominator, usually denominator(totals of the global batch), so one pass suffices.
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

class aggregation {
public:
    // Σ x m / N: every token weighs the same. DAPO (arXiv 2503.14476) with the global count, BNPO with the local one.
    static aggregation token_mean() { return {mode::token}; }
    // mean_i (Σ_t x m / n_i): every sequence weighs the same. GRPO as published (arXiv 2402.03300, eq. 3).
    // Rows without active tokens are left out of the mean, or counted as 0 with count_empty.
    static aggregation sequence_mean(bool count_empty = false) { return {mode::sequence_mean, count_empty}; }
    // mean_i (Σ_t x m). With a sequence-level ratio this is LUSPO (arXiv 2602.05261): Σ_t of a constant is n_i times it.
    static aggregation sequence_sum(bool count_empty = false) { return {mode::sequence_sum, count_empty}; }
    // Σ x m / (B · length), a constant normaliser. Dr.GRPO (arXiv 2503.20783); all rows count.
    static aggregation constant_length(double length) { return {mode::constant, true, length}; }
    // Σ x m; the denominator is 1.
    static aggregation token_sum() { return {mode::sum}; }
    // Σ x m / norm.
    static aggregation sum_over(double norm) { return {mode::sum, true, norm}; }
    // mean_i (n_i^(alpha-1) Σ_t x m): alpha 0 is sequence_mean, alpha 1 is sequence_sum.
    static aggregation length_power(double alpha, bool count_empty = false) {
        return {mode::power, count_empty, alpha};
    }
    // Several sequences of one rollout share a denominator: c_i = 1 / tokens[i], where tokens[i] is the number of active
    // tokens of the whole rollout that sequence i belongs to. The weight counts rollouts with active tokens; `rollouts`
    // is how many the mean runs over (of all ranks), which totals of sequences do not tell.
    static aggregation rollout_mean(view<const std::int64_t> tokens, std::int64_t rollouts) {
        aggregation a{mode::rollout, false, static_cast<double>(rollouts)};
        a.rollout_tokens_ = tokens;
        return a;
    }

    // The same with eps added to the denominator: NeMo RL's 1e-8. It has no part in loss_result::weight.
    aggregation plus_eps(double eps) const {
        aggregation a = *this;
        a.eps_ = eps;
        return a;
    }

    // Σ weight for the batch (or the sum over all ranks) that `t` counts, and eps.
    double denominator(const totals& t) const { return count(t) + eps_; }

    GRPO_HD double coefficient(std::int64_t row, std::int64_t n) const {
        if (n == 0) return 0.0;
        switch (mode_) {
            case mode::sequence_mean: return 1.0 / static_cast<double>(n);
            case mode::power: return ::pow(static_cast<double>(n), parameter_ - 1.0);
            case mode::rollout: return 1.0 / static_cast<double>(rollout_tokens_[row]);
            default: return 1.0;
        }
    }

    GRPO_HD double weight(std::int64_t row, std::int64_t n) const {
        switch (mode_) {
            case mode::token: return static_cast<double>(n);
            case mode::constant: return parameter_;
            case mode::sum: return 0.0;
            case mode::rollout:
                return n == 0 ? 0.0 : static_cast<double>(n) / static_cast<double>(rollout_tokens_[row]);
            default: return n > 0 || count_empty_ ? 1.0 : 0.0;
        }
    }

    problem validate(const char* function, std::int64_t rows) const {
        if (const problem p = detail::below(function, "aggregation::plus_eps's eps", eps_, 0.0)) return p;
        if (mode_ == mode::rollout) {
            return detail::wrong_size(function, "aggregation::rollout_mean's tokens", rollout_tokens_.size(), rows,
                                      "sequences");
        }
        if (mode_ == mode::constant || mode_ == mode::sum) {
            return parameter_ > 0 ? problem{}
                                  : detail::complain(function, "aggregation", "has the normaliser %g, but it must be above %g",
                                                     parameter_, 0.0);
        }
        return {};
    }

private:
    enum class mode { token, sequence_mean, sequence_sum, constant, sum, power, rollout };

    aggregation(mode m, bool count_empty = false, double parameter = 1.0)
        : mode_(m), count_empty_(count_empty), parameter_(parameter) {}

    double count(const totals& t) const {
        switch (mode_) {
            case mode::token: return static_cast<double>(t.tokens);
            case mode::constant: return static_cast<double>(t.sequences) * parameter_;
            case mode::sum:
            case mode::rollout: return parameter_;
            default: return static_cast<double>(count_empty_ ? t.sequences : t.nonempty);
        }
    }

    mode mode_;
    bool count_empty_;
    double parameter_;
    double eps_ = 0.0;
    view<const std::int64_t> rollout_tokens_;
};

}  // namespace grpo::inline v0
