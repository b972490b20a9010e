// Importance weights for tokens that another engine sampled: w = π_old / π_rollout, bounded.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/correction/log_weight.hpp>
#include <grpo/exec/serial.hpp>

namespace grpo::inline v0 {

// What happens to a weight outside its band [low, high]; the bounds themselves are inside.
enum class out_of_band {
    truncate,  // it becomes the nearer bound
    drop,      // it becomes 0
};

// How weights are made. log w (or its sum or mean) is cut to ±bound before it is exponentiated: e^20 is 4.9e8. A missing
// logp_rollout counts as log w = 0.
struct correction {
    correction_level level = correction_level::token;
    out_of_band action = out_of_band::truncate;
    double low = 0.0;
    double high = 2.0;
    correction_level band_level = correction_level::token;  // where the band is tested; differs from level for drop alone
    bool normalise = false;                                 // divide by the mean weight, see normalised()
    double bound = 20.0;

    // min(w, cap): truncated importance sampling. cap 2: verl, slime, tunix.
    static correction tis(double cap = 2.0, correction_level level = correction_level::token) {
        return {level, out_of_band::truncate, 0.0, cap, level};
    }
    // clip(w, low, high). Defaults of OpenRLHF.
    static correction band(double low = 0.5, double high = 5.0, correction_level level = correction_level::token) {
        return {level, out_of_band::truncate, low, high, level};
    }
    // w inside the band, else 0: IcePop (arXiv 2510.18855). Defaults of OpenRLHF.
    static correction icepop(double low = 0.5, double high = 5.0, correction_level level = correction_level::token) {
        return {level, out_of_band::drop, low, high, level};
    }
    // The sequence's weight where it is at most `high`, else 0. TRL's default, 3.
    static correction sequence_mask(double high = 3.0, double low = 0.0) {
        return icepop(low, high, correction_level::sequence);
    }
    // Token weights, not truncated, of the sequences with low <= e^(mean log w) <= high; 0 elsewhere (OpenRLHF, NeMo RL).
    static correction seq_mask_tis(double low = 0.5, double high = 5.0) {
        return {correction_level::token, out_of_band::drop, low, high, correction_level::geometric};
    }
    // The same, divided by the mean of the bounded weights: over tokens, or at the other levels over sequences of their
    // token mean (empty sequences left out). Not divided where that mean is not above 1e-8.
    correction normalised() const {
        correction c = *this;
        c.normalise = true;
        return c;
    }

    problem validate(const char* function) const {
        const problem p = detail::first_of(detail::below(function, "correction.low", low, 0.0),
                                           detail::below(function, "correction.bound", bound, 0.0),
                                           detail::validate_band(function, "correction", low, high));
        if (p || action == out_of_band::drop || band_level == level) return p;
        return detail::complain(function, "correction.band_level", "is %lld, but truncation needs the weight's level %lld",
                                static_cast<long long>(band_level), static_cast<long long>(level));
    }
};

// Sums over active tokens; results of parts of a batch add up. Non-finite weights (only a NaN logp_old makes one) are
// counted and left out of the sums.
struct correction_result {
    std::int64_t tokens = 0;           // active tokens
    std::int64_t sequences = 0;        // sequences with an active token
    std::int64_t outside = 0;          // tokens whose weight was outside the band
    std::int64_t missing = 0;          // tokens without logp_rollout, weight 1 at token level
    std::int64_t nonfinite = 0;        // tokens whose log w is not finite although logp_rollout is not missing
    std::int64_t first_nonfinite = -1;  // flat index of the first of them, in the part where it occurred
    std::int64_t weighted = 0;         // tokens in the sums below
    std::int64_t weighted_sequences = 0;
    double weight = 0;         // Σ w
    double weight_square = 0;  // Σ w²
    double sequence_mean = 0;  // Σ_i mean_t w

    // What normalised() divides by. To normalise over ranks or micro-batches: compute weights without it, add the
    // results, then divide_weights() by this.
    GRPO_HD double mean(correction_level level) const {
        const double sum = level == correction_level::token ? weight : sequence_mean;
        const std::int64_t n = level == correction_level::token ? weighted : weighted_sequences;
        const double centre = n > 0 ? sum / static_cast<double>(n) : 0.0;
        return centre > 1e-8 ? centre : 1.0;
    }
    // (Σw)² / Σw², between 1 and the number of tokens; 0 where every weight is 0.
    double effective_sample_size() const { return weight_square > 0 ? weight * weight / weight_square : 0.0; }
    double outside_fraction() const {
        return tokens > 0 ? static_cast<double>(outside) / static_cast<double>(tokens) : 0.0;
    }

    GRPO_HD friend correction_result operator+(correction_result a, const correction_result& b) {
        a.tokens += b.tokens;
        a.sequences += b.sequences;
        a.outside += b.outside;
        a.missing += b.missing;
        a.nonfinite += b.nonfinite;
        if (a.first_nonfinite < 0) a.first_nonfinite = b.first_nonfinite;
        a.weighted += b.weighted;
        a.weighted_sequences += b.weighted_sequences;
        a.weight += b.weight;
        a.weight_square += b.weight_square;
        a.sequence_mean += b.sequence_mean;
        return a;
    }
};

namespace detail {

// The weights of one row. PerRow: one output entry per sequence.
template <class Batch, class W, bool PerRow>
struct weight_rows {
    using tallies = tally<7>;
    static constexpr bool takes_packs = true;
    enum { n, missing, bad, outside, sum, square, finite };

    Batch data;
    correction rule;
    view<W> out;

    GRPO_HD std::int64_t entries() const { return data.layout.extent(); }

    template <class Team>
    GRPO_HD correction_result operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<typename Batch::compute>;
        const std::int64_t begin = data.layout.begin(row);
        const std::int64_t end = data.layout.end(row);
        V own(constant<V>(0));
        V gate(constant<V>(0));
        if (rule.level != correction_level::token || rule.band_level != correction_level::token) {
            const auto all = log_sum<V>(team, row, begin, end);
            own = V(constant<V>(row_weight(rule.level, all.sum[0], all.sum[1])));
            gate = V(constant<V>(row_weight(rule.band_level, all.sum[0], all.sum[1])));
        }
        const auto total = team.template fold<tallies, V>(
            begin, end, [&](auto& state, cursor<V> at) { this->one_token(state, at, row, own, gate); });
        if constexpr (PerRow) {
            const V w = total.sum[n] > 0 ? shaped(own, out_of(gate)) : V(constant<V>(0));
            if (team.leader()) cursor<V>{row, 1}.store(out.data(), w);
        }
        return result(total);
    }

private:
    template <class V, class Team>
    GRPO_HD auto log_sum(Team& team, std::int64_t row, std::int64_t begin, std::int64_t end) const {
        return team.template fold<tally<2>, V>(begin, end, [&](auto& state, cursor<V> at) {
            const mask_t<V> use = data.layout.active(at);
            if (!any(use)) return;
            const log_weight<V> x = read_log_weight<Batch, V>(data, at, row);
            add_where(state.sum[0], use, x.log_w);
            add_count<V>(state.sum[1], use);
        });
    }

    GRPO_HD double row_weight(correction_level level, double log_w, double tokens) const {
        if (level == correction_level::token || tokens == 0) return 0.0;
        const double x = level == correction_level::sequence ? log_w : log_w / tokens;
        return ::exp(log_weight<double>::cut(x, rule.bound));
    }

    template <class V>
    GRPO_HD mask_t<V> out_of(const V& w) const {
        return either(w < V(constant<V>(rule.low)), V(constant<V>(rule.high)) < w);
    }

    template <class V>
    GRPO_HD V shaped(const V& w, const mask_t<V>& is_outside) const {
        if (rule.action == out_of_band::drop) return math::select<V>(is_outside, V(constant<V>(0)), w);
        const V low(constant<V>(rule.low));
        return math::select<V>(is_outside, math::select<V>(w < low, low, V(constant<V>(rule.high))), w);
    }

    template <class State, class V>
    GRPO_HD void one_token(State& state, cursor<V> at, std::int64_t row, const V& own, const V& gate) const {
        const V zero(constant<V>(0));
        const mask_t<V> use = data.layout.active(at);
        if (!any(use)) {
            if constexpr (!PerRow) at.store(out.data(), zero);
            return;
        }
        const log_weight<V> x = read_log_weight<Batch, V>(data, at, row);
        const bool by_token = rule.level == correction_level::token;
        const V raw = by_token ? math::exp(x.bounded(rule.bound)) : own;
        // By value: packs that are chosen by address lie in a device's local memory.
        const mask_t<V> is_outside = rule.band_level == correction_level::token ? out_of(raw) : out_of(gate);
        const V w = shaped(raw, is_outside);
        const mask_t<V> good = both(use, negation(is_nonfinite(w)));
        note_unusual<missing, bad>(state, at, use, x);
        add_count<V>(state.sum[n], use);
        add_count<V>(state.sum[outside], both(use, is_outside));
        add_where(state.sum[sum], good, w);
        add_where(state.sum[square], good, V(w * w));
        add_count<V>(state.sum[finite], good);
        if constexpr (!PerRow) at.store(out.data(), math::select<V>(use, w, zero));
    }

    GRPO_HD static correction_result result(const tallies::state<double>& t) {
        correction_result r;
        r.tokens = static_cast<std::int64_t>(t.sum[n]);
        r.sequences = t.sum[n] > 0 ? 1 : 0;
        r.outside = static_cast<std::int64_t>(t.sum[outside]);
        r.missing = static_cast<std::int64_t>(t.sum[missing]);
        r.nonfinite = static_cast<std::int64_t>(t.sum[bad]);
        r.first_nonfinite = t.first == no_index ? -1 : t.first;
        r.weighted = static_cast<std::int64_t>(t.sum[finite]);
        r.weighted_sequences = t.sum[finite] > 0 ? 1 : 0;
        r.weight = t.sum[sum];
        r.weight_square = t.sum[square];
        r.sequence_mean = t.sum[finite] > 0 ? t.sum[sum] / t.sum[finite] : 0.0;
        return r;
    }
};

// The mean weight, of sums that will have been folded when the rows are walked.
struct measured_centre {
    const correction_result* of;
    correction_level level;

    GRPO_HD operator double() const { return of->mean(level); }
};

// The active weights of a row, divided.
template <class Shape, class W, class Centre>
struct divided_rows {
    Shape layout;
    view<W> weight;
    Centre centre;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<std::conditional_t<std::same_as<W, double>, double, float>>;
        const double divisor = centre;
        team.template each<V>(layout.begin(row), layout.end(row), [&](cursor<V> at) {
            const V w = at.load(weight.data());
            const mask_t<V> use = layout.active(at);
            at.store(weight.data(), math::select<V>(use, V(w / V(constant<V>(divisor))), w));
        });
    }
};

// Weights of sequences, divided: 0 stays 0.
template <class W, class Centre>
struct divided_entries {
    view<W> weight;
    Centre centre;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        if (team.leader()) weight[row] = static_cast<W>(static_cast<double>(weight[row]) / centre);
    }
};

GRPO_HD void rescale(correction_result& r, double centre) {
    r.weight /= centre;
    r.weight_square /= centre * centre;
    r.sequence_mean /= centre;
}

struct rescaled_result {
    correction_result* of;
    correction_level level;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t) const {
        if (team.leader()) rescale(*of, of->mean(level));
    }
};

template <bool PerRow, class Exec, class Shape, class W, class Centre>
void divide(const Exec& exec, const Shape& layout, view<W> weight, const Centre& centre) {
    if constexpr (PerRow) exec.teams(layout.rows(), divided_entries<W, Centre>{weight, centre});
    else exec.teams(layout.rows(), divided_rows<Shape, W, Centre>{layout, weight, centre});
}

// The weights and, normalised, the second pass that divides them.
template <bool PerRow, class Exec, class Batch, class W>
auto make_weights(const Exec& exec, const Batch& b, const correction& rule, view<W> out, const char* function) {
    check_correction_inputs<Batch>();
    require(check_batch(exec, function, b, correction_needs));
    require(first_of(rule.validate(function),
                     validate_view(function, "weight", out, PerRow ? b.layout.rows() : b.layout.extent(),
                                   PerRow ? "sequences" : "positions"),
                     check_reach(exec, function, named("weight", out))));
    auto r = fold_rows<correction_result>(exec, b.layout.rows(), weight_rows<Batch, W, PerRow>{b, rule, out});
    if (!rule.normalise) return r;
    if constexpr (on_host<Exec>) {
        const double centre = r.mean(rule.level);
        divide<PerRow>(exec, b.layout, out, centre);
        rescale(r, centre);
    } else {
        divide<PerRow>(exec, b.layout, out, measured_centre{r, rule.level});
        exec.teams(1, rescaled_result{const_cast<correction_result*>(r), rule.level});
    }
    return r;
}

}  // namespace detail

// weight[t] /= centre for active tokens.
template <class Exec, shape Shape, class Weights>
void divide_weights(Exec&& exec, const Shape& layout, double centre, Weights&& weight) {
    const view out(weight);
    constexpr const char* function = "divide_weights";
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::first_of(detail::validate_view(function, "weight", out, layout.extent(), "positions"),
                                     detail::check_reach(exec, function, detail::named("weight", out))));
    if (!(centre > 0)) detail::require(detail::complain(function, "centre", "is %g, but must be above %g", centre, 0.0));
    detail::divide<false>(exec, layout, out, centre);
}

// weight[t] = w_t for active tokens, 0 for masked ones; give it to the loss as grpo::weight(w). One entry per position.
// Needs logp_old and logp_rollout in the batch. `weight` may be logp_rollout's or logp_old's own memory at token level.
// (An executor of another memory returns where the sums will be.)
template <class Exec, shape Shape, class... Fields, class Weights>
detail::total_of<Exec, correction_result> correction_weights(Exec&& exec, const batch<Shape, Fields...>& b,
                                                             const correction& rule, Weights&& weight) {
    const view out(weight);
    return detail::make_weights<false>(exec, b, rule, out, "correction_weights");
}
template <shape Shape, class... Fields, class Weights>
correction_result correction_weights(const batch<Shape, Fields...>& b, const correction& rule, Weights&& weight) {
    return correction_weights(serial{}, b, rule, weight);
}

// The same with one entry per sequence (0 for one without active tokens): grpo::weight(grpo::by_sequence(w)). The
// correction's levels must be sequence or geometric.
template <class Exec, shape Shape, class... Fields, class Weights>
detail::total_of<Exec, correction_result> correction_weights_by_sequence(Exec&& exec, const batch<Shape, Fields...>& b,
                                                                         const correction& rule, Weights&& weight) {
    constexpr const char* function = "correction_weights_by_sequence";
    const view out(weight);
    if (rule.level == correction_level::token || rule.band_level == correction_level::token) {
        detail::require(detail::complain(function, "correction.level",
                                         "and band_level are %lld and %lld, but a weight per sequence needs sequence or geometric",
                                         static_cast<long long>(rule.level), static_cast<long long>(rule.band_level)));
    }
    return detail::make_weights<true>(exec, b, rule, out, function);
}
template <shape Shape, class... Fields, class Weights>
correction_result correction_weights_by_sequence(const batch<Shape, Fields...>& b, const correction& rule,
                                                 Weights&& weight) {
    return correction_weights_by_sequence(serial{}, b, rule, weight);
}

}  // namespace grpo::inline v0
