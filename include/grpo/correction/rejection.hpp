// Rejection: a keep mask from how far the trainer and the rollout engine disagree about a token or a sequence.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <grpo/correction/log_weight.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/term/ratio.hpp>

namespace grpo::inline v0 {

// What is compared with the band; x = log w = logp_old - logp_rollout, cut to ±bound.
enum class mismatch_statistic {
    k1,          // -x, an estimate of KL(π_rollout ‖ π_old). The sign is verl's: with a band the *inverse* ratio is judged
    log_weight,  // +x, what AReaL calls k1
    k2,          // ½ x²
    k3,          // e^x - 1 - x
    ratio,       // e^x; over a sequence e^(Σx), e^(mean x), e^(max x)
    error,       // e^|x|, the multiplicative error of the probability, never below 1
};

enum class rejection_level { token, sequence_sum, sequence_mean, sequence_max };

// Keep where low <= statistic <= high, both included; at the sequence levels a sequence is kept or dropped whole.
// A token or sequence with a non-finite log w is dropped; a missing logp_rollout counts as x = 0.
struct rejection {
    mismatch_statistic statistic = mismatch_statistic::k3;
    rejection_level level = rejection_level::sequence_mean;
    double low = 0.0;
    double high = 0.01;
    double bound = 20.0;

    // log low <= -log w <= log high: verl's rule, bounds given as ratios. Its presets: 0.5 to 2 for sequence_sum, 0.999
    // to 1.001 for sequence_mean.
    static rejection k1(rejection_level level, double low, double high) {
        return {mismatch_statistic::k1, level, log_of(low), log_of(high)};
    }
    // low <= log w <= high: AReaL's rule, bounds given as logarithms.
    static rejection log_weight(rejection_level level, double low, double high) {
        return {mismatch_statistic::log_weight, level, low, high};
    }
    static rejection k2(rejection_level level, double high) { return {mismatch_statistic::k2, level, 0.0, high}; }
    static rejection k3(rejection_level level, double high) { return {mismatch_statistic::k3, level, 0.0, high}; }
    // With untruncated weights this is slime's mask mode; sequence_mean is the geometric sequence mask.
    static rejection ratio(rejection_level level, double low, double high) {
        return {mismatch_statistic::ratio, level, low, high};
    }
    // mean_t e^|log w| <= threshold: NeMo RL's sequence log-probability error mask.
    static rejection logp_error(double threshold) {
        return {mismatch_statistic::error, rejection_level::sequence_mean, 0.0, threshold};
    }
    // A sequence with any token of w < threshold is dropped: the veto of catastrophic tokens. No safety bound.
    static rejection veto(double threshold = 1e-4) {
        return {mismatch_statistic::k1, rejection_level::sequence_max, lowest, -log_of(threshold), math::unbounded};
    }

    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "rejection.bound", bound, 0.0),
                                detail::validate_band(function, "rejection", low, high));
    }

private:
    static double log_of(double x) { return x > 0 ? ::log(x) : lowest; }
};

// Counts; those of parts of a batch add up.
struct rejection_result {
    std::int64_t tokens = 0;     // active tokens
    std::int64_t sequences = 0;  // sequences with an active token
    std::int64_t rejected_tokens = 0;
    std::int64_t rejected_sequences = 0;  // those that lost every token
    std::int64_t missing = 0;             // tokens without logp_rollout
    std::int64_t nonfinite = 0;           // tokens whose log w is not finite although logp_rollout is not missing
    std::int64_t first_nonfinite = -1;    // flat index of the first of them, in the part where it occurred

    GRPO_HD friend rejection_result operator+(rejection_result a, const rejection_result& b) {
        a.tokens += b.tokens;
        a.sequences += b.sequences;
        a.rejected_tokens += b.rejected_tokens;
        a.rejected_sequences += b.rejected_sequences;
        a.missing += b.missing;
        a.nonfinite += b.nonfinite;
        if (a.first_nonfinite < 0) a.first_nonfinite = b.first_nonfinite;
        return a;
    }
};

namespace detail {

struct no_output {
    template <class V>
    GRPO_HD static void store(cursor<V>, const V&) {}
};
template <class T>
struct optional_output {
    view<T> out;
    template <class V>
    GRPO_HD void store(cursor<V> at, const V& x) const {
        at.store(out.data(), x);
    }
};

template <class Batch, class M, class Statistic>
struct rejection_rows {
    using tallies = tally<5, 1>;
    static constexpr bool takes_packs = true;
    enum { n, missing, bad, sum, kept };

    Batch data;
    rejection rule;
    view<M> keep;
    Statistic statistic;

    GRPO_HD std::int64_t entries() const { return data.layout.extent(); }

    template <class Team>
    GRPO_HD rejection_result operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<typename Batch::compute>;
        const std::int64_t begin = data.layout.begin(row);
        const std::int64_t end = data.layout.end(row);
        const auto total = team.template fold<tallies, V>(
            begin, end, [&](auto& state, cursor<V> at) { this->one_token(state, at, row); });
        if (rule.level == rejection_level::token) return result(total, total.sum[kept]);
        const double whole = row_statistic(total);
        if (team.leader()) statistic.store(cursor<V>{row, 1}, V(constant<V>(whole)));
        const bool good = total.sum[bad] == 0 && rule.low <= whole && whole <= rule.high;
        team.template each<V>(begin, end, [&](cursor<V> at) {
            const V one(constant<V>(good ? 1.0 : 0.0));
            at.store(keep.data(), math::select<V>(data.layout.active(at), one, V(constant<V>(0))));
        });
        return result(total, good ? total.sum[n] : 0.0);
    }

private:
    // The ratio is aggregated in log space.
    template <class V>
    GRPO_HD V of_token(const V& x, bool aggregated) const {
        switch (rule.statistic) {
            case mismatch_statistic::k1: return V(-x);
            case mismatch_statistic::k2: return V(constant<V>(0.5) * x * x);
            case mismatch_statistic::k3: return math::exp_remainder(x);
            case mismatch_statistic::ratio: return aggregated ? x : math::exp(x);
            case mismatch_statistic::error: return math::exp(math::abs(x));
            default: return x;
        }
    }

    GRPO_HD double row_statistic(const tallies::state<double>& t) const {
        if (t.sum[n] == 0) return 0.0;
        double x = t.sum[sum];
        if (rule.level == rejection_level::sequence_mean) x = x / t.sum[n];
        if (rule.level == rejection_level::sequence_max) x = t.maximum[0];
        return rule.statistic == mismatch_statistic::ratio ? ::exp(log_weight<double>::cut(x, rule.bound)) : x;
    }

    template <class State, class V>
    GRPO_HD void one_token(State& state, cursor<V> at, std::int64_t row) const {
        const bool by_token = rule.level == rejection_level::token;
        const V zero(constant<V>(0));
        const mask_t<V> use = data.layout.active(at);
        if (!any(use)) {
            if (by_token) at.store(keep.data(), zero);
            if (by_token) statistic.store(at, zero);
            return;
        }
        const log_weight<V> x = read_log_weight<Batch, V>(data, at, row);
        const V s = of_token(x.bounded(rule.bound), !by_token);
        const mask_t<V> good = both(use, negation(x.nonfinite));
        const V low(constant<V>(rule.low));
        const V high(constant<V>(rule.high));
        const mask_t<V> inside = both(good, both(low <= s, s <= high));
        note_unusual<missing, bad>(state, at, use, x);
        add_count<V>(state.sum[n], use);
        add_where(state.sum[sum], good, s);
        add_count<V>(state.sum[kept], inside);
        raise(state.maximum[0], V(math::select<V>(good, s, V(constant<V>(lowest)))));
        if (!by_token) return;
        at.store(keep.data(), math::select<V>(inside, V(constant<V>(1)), zero));
        statistic.store(at, math::select<V>(use, s, zero));
    }

    GRPO_HD static rejection_result result(const tallies::state<double>& t, double kept_tokens) {
        rejection_result r;
        r.tokens = static_cast<std::int64_t>(t.sum[n]);
        r.sequences = r.tokens > 0 ? 1 : 0;
        r.rejected_tokens = r.tokens - static_cast<std::int64_t>(kept_tokens);
        r.rejected_sequences = r.tokens > 0 && kept_tokens == 0 ? 1 : 0;
        r.missing = static_cast<std::int64_t>(t.sum[missing]);
        r.nonfinite = static_cast<std::int64_t>(t.sum[bad]);
        r.first_nonfinite = t.first == no_index ? -1 : t.first;
        return r;
    }
};

template <class Exec, class Batch, class M, class Statistic>
auto run_rejection(const Exec& exec, const Batch& b, const rejection& rule, view<M> keep, const Statistic& to) {
    check_correction_inputs<Batch>();
    require(check_batch(exec, "reject", b, correction_needs));
    require(first_of(rule.validate("reject"),
                     validate_view("reject", "keep", keep, b.layout.extent(), "positions"),
                     check_reach(exec, "reject", named("keep", keep))));
    return fold_rows<rejection_result>(exec, b.layout.rows(), rejection_rows<Batch, M, Statistic>{b, rule, keep, to});
}

}  // namespace detail

// keep[t] = 1 where the token stays, 0 where it is rejected or masked. `keep` may be the batch's own mask. Chain two
// rules by giving the second the shape .where(keep) of the first.
//   denominators shrink:        batch over shape.where(keep)
//   denominators stay as were:  keep as grpo::weight(keep), or .where(keep) with the denominator counted before
// Executors of another memory return where the counts will be.
template <class Exec, shape Shape, class... Fields, class Keep>
detail::total_of<Exec, rejection_result> reject(Exec&& exec, const batch<Shape, Fields...>& b, const rejection& rule,
                                                Keep&& keep) {
    return detail::run_rejection(exec, b, rule, view(keep), detail::no_output{});
}
template <shape Shape, class... Fields, class Keep>
rejection_result reject(const batch<Shape, Fields...>& b, const rejection& rule, Keep&& keep) {
    return reject(serial{}, b, rule, keep);
}

// Also writes the statistic: per position at token level (0 where masked), else per sequence (0 where empty).
template <class Exec, shape Shape, class... Fields, class Keep, class Statistic>
detail::total_of<Exec, rejection_result> reject(Exec&& exec, const batch<Shape, Fields...>& b, const rejection& rule,
                                                Keep&& keep, Statistic&& statistic) {
    const view out(statistic);
    const bool by_token = rule.level == rejection_level::token;
    if constexpr (!detail::on_host<Exec>) detail::require(detail::check_shape(exec, "reject", b.layout));
    detail::require(detail::validate_view("reject", "statistic", out, by_token ? b.layout.extent() : b.layout.rows(),
                                          by_token ? "positions" : "sequences"));
    detail::require(detail::check_reach(exec, "reject", detail::named("statistic", out)));
    using T = std::remove_reference_t<decltype(out[0])>;
    return detail::run_rejection(exec, b, rule, view(keep), detail::optional_output<T>{out});
}
template <shape Shape, class... Fields, class Keep, class Statistic>
rejection_result reject(const batch<Shape, Fields...>& b, const rejection& rule, Keep&& keep, Statistic&& statistic) {
    return reject(serial{}, b, rule, keep, statistic);
}

}  // namespace grpo::inline v0
