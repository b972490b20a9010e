// The one engine: what happens to one row (sequence), for any term, any batch, any executor.
//
//   1. if the term couples the tokens of a sequence: Σ_t g(x_t), the statistics
//   2. every active token: the term on a dual number; value into the sums, slopes times the row's weight out
//   3. if it couples: the rest of the exact gradient, (Σ_u ∂f_u/∂S) g'(x_t)
//
// A body is executed by every lane of a team; only the team's verbs (fold, each) hand out positions.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/objective/aggregation.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/objective/diagnostics.hpp>
#include <grpo/term/compose.hpp>

namespace grpo::inline v0 {

// What happens to an active token with a NaN or infinite input (R1.16).
enum class nonfinite {
    report,     // counted, with the index of the first; its value and slopes are what the arithmetic gives (default)
    propagate,  // as report, but not counted
    skip,       // counted, then treated as masked: adds nothing, gradient +0.0; lengths and denominators keep it
};

namespace detail {

template <class... Outputs>
struct output_set : Outputs... {
    explicit output_set(const Outputs&... outputs) : Outputs(outputs)... {}

    static constexpr bool any = sizeof...(Outputs) > 0;

    // Stores weight·slope per requested derivative; +0.0 where not active.
    template <unsigned Differentiable, class V, class S>
    GRPO_HD void write([[maybe_unused]] cursor<V> at, const S& f, const V& weight, const mask_t<V>& active) const {
        (write_one<Differentiable, V, S, Outputs>(at, f, weight, active), ...);
    }
    template <class V>
    GRPO_HD void clear([[maybe_unused]] cursor<V> at) const {
        (clear_one<V, Outputs>(at), ...);
    }
    // Adds to what write() stored.
    template <unsigned Differentiable, class V, class S>
    GRPO_HD void increase([[maybe_unused]] cursor<V> at, const S& f, const V& weight, const mask_t<V>& active) const {
        (increase_one<Differentiable, V, S, Outputs>(at, f, weight, active), ...);
    }

private:
    template <unsigned Differentiable, class V, class S, class Output>
    GRPO_HD static V slope_of(const S& f) {
        if constexpr ((Differentiable & Output::tag::bit) != 0) {
            return f.d[slot(Differentiable, Output::tag::bit)];
        } else {
            return V(constant<V>(0));
        }
    }
    template <unsigned Differentiable, class V, class S, class Output>
    GRPO_HD void write_one(cursor<V> at, const S& f, const V& weight, const mask_t<V>& active) const {
        if constexpr (Output::adds) {
            increase_one<Differentiable, V, S, Output>(at, f, weight, active);
        } else {
            const V slope = slope_of<Differentiable, V, S, Output>(f);
            at.store(static_cast<const Output&>(*this).data.data(),
                     math::select<V>(active, V(weight * slope), V(constant<V>(0))));
        }
    }
    template <unsigned Differentiable, class V, class S, class Output>
    GRPO_HD void increase_one(cursor<V> at, const S& f, const V& weight, const mask_t<V>& active) const {
        auto* out = static_cast<const Output&>(*this).data.data();
        const V slope = slope_of<Differentiable, V, S, Output>(f);
        const V before = at.load(out);
        at.store(out, math::select<V>(active, V(before + weight * slope), before));
    }
    template <class V, class Output>
    GRPO_HD void clear_one(cursor<V> at) const {
        if constexpr (!Output::adds) at.store(static_cast<const Output&>(*this).data.data(), V(constant<V>(0)));
    }
};

// What one row adds to the result.
template <class State>
struct row_result {
    State total;
    std::int64_t length;
    double coefficient;
    double weight;
};

// The body of a loss: see the head of this file.
template <class Term, class Batch, class Outputs, bool Observed>
struct loss_rows {
    using compute = typename Batch::compute;
    static constexpr unsigned used = Term::needs;
    static constexpr unsigned seen = used | (Observed ? Batch::has & observable : 0u);
    static constexpr unsigned active_slopes = used & Batch::differentiable;
    static constexpr int slopes = slot(active_slopes, 1u << 31);
    static constexpr int statistics = statistics_of<Term>();
    static constexpr bool coupled = couples<Term>() && Outputs::any;
    // Sums: the loss, non-finite tokens, missing rollout log-probabilities, one per statistic, then the diagnostics.
    static constexpr int at_coupling = 3;
    static constexpr int at_metrics = at_coupling + statistics;
    static constexpr int sums = at_metrics + (Observed ? metric_sums : 0);
    static constexpr int maxima = Observed ? metric_maxima : 0;
    using tallies = tally<sums, maxima>;
    static constexpr bool takes_packs = true;  // a device's lanes compute on several tokens at once
    using result = row_result<typename tallies::template state<double>>;

    Term term;
    Batch data;
    Outputs outputs;
    aggregation over;
    double scale;
    nonfinite policy;

    template <class S>
    using record = typename record_of<Batch>::template type<S>;
    // What the term is evaluated on in the main pass: a dual number, or a plain one if no derivative is wanted.
    static constexpr int all_slopes = slopes + (coupled ? statistics : 0);
    template <class V>
    using number = std::conditional_t<Outputs::any && (all_slopes > 0), dual<V, all_slopes>, V>;

    GRPO_HD std::int64_t entries() const { return data.layout.extent(); }

    template <class Team>
    GRPO_HD result operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute>;
        const std::int64_t begin = data.layout.begin(row);
        const std::int64_t end = data.layout.end(row);
        const std::int64_t tokens = count_active(team, data.layout, row);
        const double coefficient = over.coefficient(row, tokens);
        const V length(constant<V>(static_cast<double>(tokens)));
        V sums_of_row[statistics > 0 ? statistics : 1];
        fold_statistics(team, row, begin, end, length, sums_of_row);

        const auto total = fold_tokens(team, row, begin, end, length, sums_of_row, coefficient);
        if constexpr (coupled) {
            V coupling[statistics];
            for (int k = 0; k < statistics; ++k) {
                coupling[k] = V(constant<V>(coefficient * scale * total.sum[at_coupling + k]));
            }
            spread_coupling(team, row, begin, end, length, coupling);
        }
        return {total, tokens, coefficient, over.weight(row, tokens)};
    }

    // One active token of a row of `tokens` active ones, by itself: writes its outputs. For terms without statistics.
    template <class Team>
    GRPO_HD void one(Team& team, std::int64_t row, std::int64_t tokens, std::int64_t i) const {
        static_assert(statistics == 0);
        using V = typename Team::template vector<compute>;
        const V length(constant<V>(static_cast<double>(tokens)));
        if constexpr (std::is_same_v<Team, serial_team>) {
            // Without a loop, a device keeps inputs and outputs that lie in the caller's hands in registers. (Teams of several
            // lanes meet in a fold.)
            const V weight(constant<V>(over.coefficient(row, tokens) * scale));
            const whole_row<V, number<V>> base = of_row<V, number<V>>(row, length);
            typename tallies::template state<double> ignored;
            each_token<V>{*this, row, base, nullptr, weight}(ignored, cursor<V>{i}, true);
        } else {
            fold_tokens<Team, V>(team, row, i, i + 1, length, nullptr, over.coefficient(row, tokens));
        }
    }

private:
    // The main pass over a span of a row.
    template <class Team, class V>
    GRPO_HD auto fold_tokens(Team& team, std::int64_t row, std::int64_t begin, std::int64_t end, const V& length,
                             const V* sums_of_row, double coefficient) const {
        const V weight(constant<V>(coefficient * scale));
        const whole_row<V, number<V>> base = of_row<V, number<V>>(row, length);
        // A copy that no output pointer can alias: hyper-parameters and pointers then stay in registers.
        const loss_rows self = *this;
        return team.template fold<tallies, V>(
            begin, end, [&](cursor<V> at) { return self.data.layout.active(at); },
            [&](cursor<V> at) { self.outputs.clear(at); },
            each_token<V>{self, row, base, sums_of_row, weight});
    }

    // The part of a record that is the same in the whole row, and whether it is finite.
    template <class V, class S>
    struct whole_row {
        record<S> fields;
        V probe;
    };
    // one_token() with what the row knows. A named struct, because compilers refuse to inline a lambda this large.
    template <class V>
    struct each_token {
        const loss_rows& rows;
        std::int64_t row;
        const whole_row<V, number<V>>& base;
        const V* statistic;
        V weight;
        template <class State>
        GRPO_HD void operator()(State& state, cursor<V> at, const mask_t<V>& use) const {
            rows.one_token(state, at, row, base, statistic, weight, use);
        }
    };
    template <class V, class S>
    GRPO_HD whole_row<V, S> of_row(std::int64_t row, const V& length) const {
        whole_row<V, S> base{record<S>{}, V(constant<V>(0))};
        data.template read_row<used>(row, base.fields, base.probe);
        if constexpr (requires { base.fields.length; }) base.fields.length = length;
        return base;
    }
    // Which lanes of a position count, which have a non-finite input, and which lack a rollout log-probability.
    template <class V>
    struct token_masks {
        mask_t<V> use;
        mask_t<V> bad;
        mask_t<V> missing;
    };
    // The record of one position. Lanes with a non-finite input are told to `note`, and leave `use` under `skip`: in one rare
    // branch, so that no mask is chosen between where all are finite.
    template <class V, class S, class Note>
    GRPO_HD record<S> read(cursor<V> at, const whole_row<V, S>& base, token_masks<V>& lanes, const Note& note) const {
        record<S> x = base.fields;
        V probe = base.probe;
        data.template read_token<used>(at, x, probe);
        lanes.bad = both(lanes.use, is_nonfinite(probe));
        if constexpr ((used & input::logp_rollout::bit) != 0) lanes.missing = both(lanes.use, fill_missing<used, V>(x));
        if (any(lanes.bad)) [[unlikely]] {
            note(lanes.bad);
            if (policy == nonfinite::skip) lanes.use = both(lanes.use, negation(lanes.bad));
        }
        return x;
    }

    // A rollout log-probability that the sampler did not report is NaN; it becomes the one that makes its weight 1 (R1.17).
    template <unsigned Used, class V, class Record>
    GRPO_HD static mask_t<V> fill_missing(Record& x) {
        const mask_t<V> missing = is_nan(V(x.logp_rollout));
        V neutral(value(x.logp));
        if constexpr ((Used & input::logp_old::bit) != 0) neutral = V(x.logp_old);
        x.logp_rollout = math::select<V>(missing, neutral, V(x.logp_rollout));
        return missing;
    }

    template <class Team, class V>
    GRPO_HD void fold_statistics(Team& team, std::int64_t row, std::int64_t begin, std::int64_t end, const V& length,
                                 V* out) const {
        if constexpr (statistics > 0) {
            const whole_row<V, V> base = of_row<V, V>(row, length);
            const auto total = team.template fold<tally<statistics>, V>(begin, end, [&](auto& state, cursor<V> at) {
                const mask_t<V> active = data.layout.active(at);
                if (!any(active)) return;
                token_masks<V> lanes{active, active, active};
                const record<V> x = this->read(at, base, lanes, [](const mask_t<V>&) {});
                V g[statistics];
                write_statistics(term, x, g);
                for (int k = 0; k < statistics; ++k) add_where(state.sum[k], lanes.use, g[k]);
            });
            for (int k = 0; k < statistics; ++k) out[k] = V(constant<V>(total.sum[k]));
        }
    }

    template <class State, class V, class S>
    GRPO_HD void one_token(State& state, cursor<V> at, std::int64_t row, const whole_row<V, S>& base,
                           const V* statistic, const V& weight, const mask_t<V>& active) const {
        token_masks<V> lanes{active, active, active};
        record<S> x = read(at, base, lanes, [&](const mask_t<V>& bad) { note_nonfinite(state, at, bad); });
        const mask_t<V>& use = lanes.use;
        if constexpr ((used & input::logp_rollout::bit) != 0) {
            add_count<V>(state.sum[2], lanes.missing);
        }
        S sums_of_row[statistics > 0 ? statistics : 1];
        for (int k = 0; k < statistics; ++k) {
            if constexpr (coupled) {
                sums_of_row[k] = S::variable(statistic[k], slopes + k);
            } else {
                sums_of_row[k] = S(statistic[k]);
            }
        }
        if constexpr (requires { x.sums; }) x.sums = sums_of_row;
        const S f = term(x);
        add_where(state.sum[0], use, V(value(f)));
        if constexpr (coupled) {
            for (int k = 0; k < statistics; ++k) add_where(state.sum[at_coupling + k], use, f.d[slopes + k]);
        }
        if constexpr (Observed) see(state, at, row, x, base, statistic, use);  // before an output is written over an input
        outputs.template write<active_slopes>(at, f, weight, use);
    }

    template <class State, class V, class S>
    GRPO_HD void see(State& state, cursor<V> at, std::int64_t row, const record<S>& known, const whole_row<V, S>& base,
                     const V* statistic, const mask_t<V>& use) const {
        constexpr unsigned unknown = seen & ~used;
        record<V> x;
        V probe(constant<V>(0));
        Batch::template copy_values<used>(known, x);
        data.template read_row<unknown, unknown>(row, x, probe);
        data.template read_token<unknown, unknown>(at, x, probe);
        if constexpr ((seen & input::logp_rollout::bit) != 0) fill_missing<seen, V>(x);
        if constexpr (requires { x.sums; }) {
            x.length = base.fields.length;
            x.sums = statistic;
        }
        using A = std::remove_reference_t<decltype(state.sum[0])>;
        observe<seen>(term, x, data.present(), observer<V, A>{use, state.sum + at_metrics, state.maximum});
    }

    template <class State, class V>
    GRPO_HD void note_nonfinite(State& state, cursor<V> at, const mask_t<V>& bad) const {
        if (policy == nonfinite::propagate) return;
        add_count<V>(state.sum[1], bad);
        const std::int64_t i = at.i + first_lane<V>(bad);
        if (i < state.first) state.first = i;
    }

    template <class Team, class V>
    GRPO_HD void spread_coupling(Team& team, std::int64_t row, std::int64_t begin, std::int64_t end, const V& length,
                                 const V* coupling) const {
        using S = dual<V, slopes>;
        const whole_row<V, S> base = of_row<V, S>(row, length);
        team.template each<V>(begin, end, [&](cursor<V> at) {
            const mask_t<V> active = data.layout.active(at);
            if (!any(active)) return;
            token_masks<V> lanes{active, active, active};
            const record<S> x = this->read(at, base, lanes, [](const mask_t<V>&) {});
            S g[statistics];
            write_statistics(term, x, g);
            for (int k = 0; k < statistics; ++k) {
                outputs.template increase<active_slopes>(at, g[k], coupling[k], lanes.use);
            }
        });
    }
};

}  // namespace detail
}  // namespace grpo::inline v0
