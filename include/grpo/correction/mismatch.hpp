// How far the rollout engine is from the trainer: off-policy metrics of one batch, as sums and counts that add up.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <grpo/correction/log_weight.hpp>
#include <grpo/exec/serial.hpp>

namespace grpo::inline v0 {

// The band whose outside is counted, and the safety bound of log w.
struct mismatch_band {
    double low = 0.5;
    double high = 2.0;
    double bound = 20.0;
};

// Sums over active tokens and over sequences that have any; x = log w = logp_old - logp_rollout, w = e^x with x cut to
// the bound. Tokens with a non-finite log w are counted and left out. Methods give 0 where nothing was counted.
struct mismatch {
    std::int64_t tokens = 0;
    std::int64_t sequences = 0;
    std::int64_t missing = 0;    // tokens without logp_rollout, which count as x = 0
    std::int64_t nonfinite = 0;  // left out
    std::int64_t first_nonfinite = -1;
    std::int64_t outside_low = 0;   // w < low
    std::int64_t outside_high = 0;  // w > high
    double kl = 0;                  // Σ -x: the k1 estimate of KL(π_rollout ‖ π_old)
    double k3 = 0;                  // Σ w - 1 - x
    double weight = 0;              // Σ w
    double weight_square = 0;       // Σ w²
    double absolute_log = 0;        // Σ |x|
    double error = 0;               // Σ e^|x|
    double perplexity_old = 0;      // Σ_i e^(-mean_t logp_old)
    double perplexity_rollout = 0;  // Σ_i e^(-mean_t logp_rollout)
    double log_perplexity_ratio = 0;    // Σ_i mean_t(logp_rollout - logp_old)
    double sequence_weight_square = 0;  // Σ_i e^(2 Σ_t x), Σ_t x cut to the bound
    double smallest_weight = 0;
    double largest_weight = 0;
    double largest_absolute_log = 0;

    double per_token(double sum) const { return tokens > 0 ? sum / static_cast<double>(tokens) : 0.0; }
    double per_sequence(double sum) const { return sequences > 0 ? sum / static_cast<double>(sequences) : 0.0; }
    double effective_sample_size() const { return weight_square > 0 ? weight * weight / weight_square : 0.0; }
    double chi2_token() const { return tokens > 0 ? per_token(weight_square) - 1.0 : 0.0; }
    double chi2_sequence() const { return sequences > 0 ? per_sequence(sequence_weight_square) - 1.0 : 0.0; }
    double weight_deviation() const {
        const double mean = per_token(weight);
        const double variance = per_token(weight_square) - mean * mean;
        return variance > 0 ? ::sqrt(variance) : 0.0;
    }

    GRPO_HD friend mismatch operator+(mismatch a, const mismatch& b) {
        if (a.first_nonfinite < 0) a.first_nonfinite = b.first_nonfinite;
        if (b.tokens > 0) {
            const bool first = a.tokens == 0;
            if (first || b.smallest_weight < a.smallest_weight) a.smallest_weight = b.smallest_weight;
            if (first || b.largest_weight > a.largest_weight) a.largest_weight = b.largest_weight;
            if (first || b.largest_absolute_log > a.largest_absolute_log) a.largest_absolute_log = b.largest_absolute_log;
        }
        a.tokens += b.tokens;
        a.sequences += b.sequences;
        a.missing += b.missing;
        a.nonfinite += b.nonfinite;
        a.outside_low += b.outside_low;
        a.outside_high += b.outside_high;
        a.kl += b.kl;
        a.k3 += b.k3;
        a.weight += b.weight;
        a.weight_square += b.weight_square;
        a.absolute_log += b.absolute_log;
        a.error += b.error;
        a.perplexity_old += b.perplexity_old;
        a.perplexity_rollout += b.perplexity_rollout;
        a.log_perplexity_ratio += b.log_perplexity_ratio;
        a.sequence_weight_square += b.sequence_weight_square;
        return a;
    }
};

namespace detail {

template <class Batch>
struct mismatch_rows {
    using tallies = tally<13, 3>;
    static constexpr bool takes_packs = true;
    enum { n, missing, bad, low, high, log_w, k3, w, w2, absolute, error, old, rollout };

    Batch data;
    mismatch_band band;

    GRPO_HD std::int64_t entries() const { return data.layout.extent(); }

    template <class Team>
    GRPO_HD mismatch operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<typename Batch::compute>;
        const auto total = team.template fold<tallies, V>(
            data.layout.begin(row), data.layout.end(row),
            [&](auto& state, cursor<V> at) { this->one_token(state, at, row); });
        return result(total);
    }

private:
    template <class State, class V>
    GRPO_HD void one_token(State& state, cursor<V> at, std::int64_t row) const {
        const mask_t<V> use = data.layout.active(at);
        if (!any(use)) return;
        const log_weight<V> x = read_log_weight<Batch, V>(data, at, row);
        const mask_t<V> good = both(use, negation(x.nonfinite));
        const V d = x.bounded(band.bound);
        const math::exp_parts<V> parts = math::exp_split(d);
        const V ratio = parts.expm1 + constant<V>(1);
        const auto sum = [&](int k, const V& value) { add_where(state.sum[k], good, value); };
        const auto top = [&](int k, const V& value) {
            raise(state.maximum[k], V(math::select<V>(good, value, V(constant<V>(lowest)))));
        };
        note_unusual<missing, bad>(state, at, use, x);
        add_count<V>(state.sum[n], good);
        add_count<V>(state.sum[low], both(good, ratio < V(constant<V>(band.low))));
        add_count<V>(state.sum[high], both(good, V(constant<V>(band.high)) < ratio));
        sum(log_w, x.log_w);
        sum(k3, parts.remainder);
        sum(w, ratio);
        sum(w2, V(ratio * ratio));
        sum(absolute, math::abs(x.log_w));
        sum(error, math::exp(math::abs(d)));
        sum(old, x.old);
        sum(rollout, x.rollout);
        top(0, ratio);
        top(1, V(-ratio));
        top(2, math::abs(x.log_w));
    }

    GRPO_HD mismatch result(const tallies::state<double>& t) const {
        mismatch r;
        r.missing = static_cast<std::int64_t>(t.sum[missing]);
        r.nonfinite = static_cast<std::int64_t>(t.sum[bad]);
        r.first_nonfinite = t.first == no_index ? -1 : t.first;
        if (t.sum[n] == 0) return r;
        r.tokens = static_cast<std::int64_t>(t.sum[n]);
        r.sequences = 1;
        r.outside_low = static_cast<std::int64_t>(t.sum[low]);
        r.outside_high = static_cast<std::int64_t>(t.sum[high]);
        r.kl = -t.sum[log_w];
        r.k3 = t.sum[k3];
        r.weight = t.sum[w];
        r.weight_square = t.sum[w2];
        r.absolute_log = t.sum[absolute];
        r.error = t.sum[error];
        r.perplexity_old = ::exp(-t.sum[old] / t.sum[n]);
        r.perplexity_rollout = ::exp(-t.sum[rollout] / t.sum[n]);
        r.log_perplexity_ratio = (t.sum[rollout] - t.sum[old]) / t.sum[n];
        r.sequence_weight_square = ::exp(2.0 * log_weight<double>::cut(t.sum[log_w], band.bound));
        r.smallest_weight = -t.maximum[1];
        r.largest_weight = t.maximum[0];
        r.largest_absolute_log = t.maximum[2];
        return r;
    }
};

}  // namespace detail

// Needs logp_old and logp_rollout in the batch; reads them once. (An executor of another memory returns where the sums will be.)
template <class Exec, shape Shape, class... Fields>
detail::total_of<Exec, mismatch> measure_mismatch(Exec&& exec, const batch<Shape, Fields...>& b,
                                                  const mismatch_band& band = {}) {
    using Batch = batch<Shape, Fields...>;
    constexpr const char* function = "measure_mismatch";
    detail::check_correction_inputs<Batch>();
    detail::require(detail::first_of(detail::check_batch(exec, function, b, detail::correction_needs),
                                     detail::below(function, "mismatch_band.bound", band.bound, 0.0),
                                     detail::validate_band(function, "mismatch_band", band.low, band.high)));
    return detail::fold_rows<mismatch>(exec, b.layout.rows(), detail::mismatch_rows<Batch>{b, band});
}
template <shape Shape, class... Fields>
mismatch measure_mismatch(const batch<Shape, Fields...>& b, const mismatch_band& band = {}) {
    return measure_mismatch(serial{}, b, band);
}

}  // namespace grpo::inline v0
