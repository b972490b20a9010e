// Log-probabilities of the chosen tokens from logits and the way back, and the KL over the whole vocabulary.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/head/gradient.hpp>
#include <grpo/head/input.hpp>
#include <grpo/head/logits.hpp>
#include <grpo/head/softmax.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// What token_logp() writes, one entry per row; an empty view is left out. Out: float or double.
template <class Out>
struct softmax_outputs {
    view<Out> logp = {};          // log π of the target, never above 0
    view<Out> entropy = {};       // H(π)
    view<Out> sum_squares = {};   // Σ π²
    view<double> lse = {};        // log Σ e^z: all that d_logits() needs of the forward pass
};

// What d_logits() may be told of the forward pass, so that it does not read the logits once more for it. Both if there are
// slopes of the entropy, else lse alone.
struct softmax_saved {
    view<const double> lse = {};
    view<const double> entropy = {};
};

namespace detail {

// +0.0, past the cache or through it.
template <class V, class Out>
struct zeros {
    static constexpr int segments = 1;
    Out* out;
    bool past_cache;

    template <class Cursor>
    GRPO_HD void operator()(const Cursor& at) const {
        const V zero(constant<V>(0));
        if (past_cache) at.store_past_cache(out, zero);
        else at.store(out, zero);
    }
};
// A row that does not count, or the columns that only pad one.
template <class V, class Team, class Out>
GRPO_HD_WHOLE void clear(Team& team, Out* out, std::int64_t begin, std::int64_t end, bool past_cache = false) {
    if (begin == end) return;
    sweep<V>(team, span_of<V>(out, begin, end), zeros<V, Out>{out, past_cache});
    if (past_cache) finish_stores<V>();
}

// One entry per token, each left out if null: what of a row's softmax is wanted, and what of it is saved for the way back.
template <class Out>
struct softmax_arrays {
    Out* logp = nullptr;
    Out* entropy = nullptr;
    Out* sum_squares = nullptr;
    Out* kl = nullptr;
    double* lse = nullptr;
    double* exact_entropy = nullptr;
    double* lse_ref = nullptr;
    double* exact_kl = nullptr;

    GRPO_HD void write(std::int64_t i, double log_probability, const softmax_row& s, double of_ref) const {
        if (logp != nullptr) logp[i] = static_cast<Out>(log_probability);
        if (entropy != nullptr) entropy[i] = static_cast<Out>(s.entropy);
        if (sum_squares != nullptr) sum_squares[i] = static_cast<Out>(s.sum_squares);
        if (kl != nullptr) kl[i] = static_cast<Out>(s.divergence);
        if (lse != nullptr) lse[i] = s.lse;
        if (exact_entropy != nullptr) exact_entropy[i] = s.entropy;
        if (lse_ref != nullptr) lse_ref[i] = of_ref;
        if (exact_kl != nullptr) exact_kl[i] = s.divergence;
    }
};

// A row's gradient, written.
template <class V, class Team, class Each>
GRPO_HD_WHOLE void write_gradient(Team& team, const Each& each) {
    sweep<V>(team, span_of<V>(each.gradient, each.row.begin, each.row.end), each);
}

template <softmax_wants Wants, class Input, class Out>
struct logp_rows {
    Input from;
    softmax_arrays<Out> out;

    static constexpr bool long_rows = true;
    GRPO_HD static constexpr bool keeps_rows() { return false; }
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        using V = typename Team::template vector<typename Input::compute>;
        const std::int64_t token = from.position(i);
        const row_use use = from.uses(token);
        if (use != row_use::active) return skip(team, token, use);
        const auto row = from.row(i);
        const auto ref = from.template beside<WithKl, V>(team, i);
        const softmax_row s = measure<Wants, V>(team, row, ref);
        if (!team.leader()) return;
        write<V>(token, row, ref, s, out.logp == nullptr ? 0.0 : from.template read<V>(row, from.target_of(i)));
    }
    // Rows [first, last), those that follow under way meanwhile.
    template <class Team>
    GRPO_HD void range(Team& team, std::int64_t first, std::int64_t last) const {
        using V = typename Team::template vector<typename Input::compute>;
        rows_in_range<V, Team, Input> walk(team, from, first, last);
        std::int64_t sequence = -1;
        for (std::int64_t i = first; i < last; ++i) {
            const std::int64_t token = from.position(i);
            const row_use use = from.uses(token, sequence);
            if (use != row_use::active) {
                skip(team, token, use);
                continue;
            }
            const auto row = from.row(i);
            const double y = from.template read<V>(row, walk.target);
            const auto ref = from.template beside<WithKl, V>(team, i);
            walk.ask();
            using sums = softmax_sums<Wants>;
            const auto mine = with_step<Wants, true, V>(row, ref, y, [&](const span& where, const auto& step) {
                return walk.rows.template pass<sums>(where, step);
            });
            const softmax_row s = softmax_row::of<sums, V>(team.template combine<sums>(mine));
            if (team.leader()) write<V>(token, row, ref, s, y);
        }
    }

private:
    static constexpr bool WithKl = has(Wants, softmax_wants::divergence);

    template <class Team>
    GRPO_HD void skip(Team& team, std::int64_t token, row_use use) const {
        softmax_row nothing;
        nothing.lse = 0;
        if (use == row_use::masked && team.leader()) out.write(token, 0.0, nothing, 0.0);
    }
    template <class V, class Row, class Ref>
    GRPO_HD void write(std::int64_t token, const Row& row, const Ref& ref, const softmax_row& s, double y) const {
        const double log_probability = s.log_probability(y * softmax_exponent<V>(row.reading.factor).factor());
        if constexpr (WithKl) out.write(token, log_probability, s, ref.lse);
        else out.write(token, log_probability, s, 0.0);
    }
};

// What of the forward pass is known: of lse null, nothing.
struct saved_arrays {
    const double* lse = nullptr;
    const double* entropy = nullptr;
    const double* lse_ref = nullptr;
    const double* kl = nullptr;
};

template <bool WithEntropy, bool WithKl, class Input, class G, class Out>
struct d_logits_rows {
    Input from;
    const G* d_logp;
    const G* d_entropy;
    const G* d_kl;
    saved_arrays saved;
    Out* gradient;

    static constexpr bool long_rows = true;
    GRPO_HD bool keeps_rows() const { return !known(); }
    GRPO_HD bool writes_packs() const { return same_packs(from.in.data.data(), gradient); }
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        using V = typename Team::template vector<typename Input::compute>;
        const std::int64_t token = from.position(i);
        const row_use use = from.uses(token);
        if (use == row_use::masked) skip<V>(team, i);
        if (use != row_use::active) return;
        const auto row = from.row(i);
        const auto ref = from.template beside<WithKl, V>(team, i, saved.lse_ref);
        const softmax_row s = known() ? of(token) : measure<wanted(WithEntropy, WithKl), V>(team, row, ref);
        gradient_type<V> each(row, gradient, ref);
        each.prepare(team, s, slopes(token), d_logp == nullptr ? row.end : from.chosen(i));
        write_gradient<V>(team, each);
        clear<V>(team, gradient, row.end, row.begin + from.in.vocabulary);
    }
    // Rows [first, last), those that follow under way meanwhile.
    template <class Team>
    GRPO_HD void range(Team& team, std::int64_t first, std::int64_t last) const {
        using V = typename Team::template vector<typename Input::compute>;
        rows_in_range<V, Team, Input> walk(team, from, first, last, !known());
        std::int64_t sequence = -1;
        for (std::int64_t i = first; i < last; ++i) {
            const std::int64_t token = from.position(i);
            const row_use use = from.uses(token, sequence);
            if (use == row_use::masked) skip<V>(team, i);
            if (use != row_use::active) continue;
            const auto row = from.row(i);
            const double y = from.template read<V>(row, walk.target);
            gradient_type<V> each(row, gradient, from.template beside<WithKl, V>(team, i, saved.lse_ref));
            const softmax_row s = known() ? of(token) : measured<V>(team, walk.rows, each, y);
            const span where = span_of<V>(row.data, row.begin, row.end);
            const std::int64_t written = walk.written(row, where);
            each.take(each.scales(s, slopes(token), y, written), written);
            walk.ask();
            if (known()) walk.rows.visit(where, each);
            else walk.rows.sweep(where, each);
            clear<V>(team, gradient, row.end, row.begin + from.in.vocabulary);
        }
    }

private:
    template <class V>
    using ref_type = typename Input::template beside_type<WithKl, V>;
    template <class V>
    using gradient_type = softmax_gradient<WithEntropy, false, V, typename Input::row_type, ref_type<V>, Out>;

    template <class V, class Team>
    GRPO_HD void skip(Team& team, std::int64_t i) const {
        const std::int64_t begin = from.in.layout().begin(i);
        clear<V>(team, gradient, begin, begin + from.in.vocabulary, from.large());
    }
    template <class V, class Team, class Rows>
    GRPO_HD softmax_row measured(Team& team, Rows& rows, const gradient_type<V>& each, double y) const {
        constexpr softmax_wants wants = wanted(WithEntropy, WithKl);
        using sums = softmax_sums<wants>;
        const auto mine = with_step<wants, true, V>(each.row, each.ref, y, [&](const span& where, const auto& step) {
            return rows.template measure<sums>(where, step);
        });
        return softmax_row::of<sums, V>(team.template combine<sums>(mine));
    }
    GRPO_HD softmax_slopes slopes(std::int64_t token) const {
        return {entry(d_logp, token), entry(d_entropy, token), entry(d_kl, token)};
    }
    GRPO_HD static double entry(const G* values, std::int64_t i) {
        return values == nullptr ? 0.0 : static_cast<double>(values[i]);
    }
    GRPO_HD bool known() const {
        return saved.lse != nullptr && (!WithEntropy || saved.entropy != nullptr) && (!WithKl || saved.kl != nullptr);
    }
    GRPO_HD softmax_row of(std::int64_t token) const {
        softmax_row s;
        s.lse = saved.lse[token];
        s.empty = s.lse <= lowest;
        if constexpr (WithEntropy) s.entropy = saved.entropy[token];
        if constexpr (WithKl) s.divergence = saved.kl[token];
        return s;
    }
};

// KL(π ‖ π_ref) of one row, and optionally weight times its gradient π (log π - log π_ref - KL).
template <class Input, class Out, class Gradient>
struct full_kl_rows {
    Input from;
    Out* kl;
    const Out* weight;
    Gradient* gradient;

    static constexpr bool long_rows = true;
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        using V = typename Team::template vector<typename Input::compute>;
        const auto row = from.row(i);
        if (from.uses(i) != row_use::active) {
            if (team.leader() && kl != nullptr) kl[i] = Out(0);
            if (gradient != nullptr) clear<V>(team, gradient, row.begin, row.begin + from.in.vocabulary, from.large());
            return;
        }
        const auto ref = from.template beside<true, V>(team, i);
        const softmax_row s = measure<softmax_wants::divergence, V>(team, row, ref);
        if (team.leader() && kl != nullptr) kl[i] = static_cast<Out>(s.divergence);
        if (gradient == nullptr) return;
        using ref_type = typename Input::template beside_type<true, V>;
        softmax_gradient<false, false, V, typename Input::row_type, ref_type, Gradient> each(row, gradient, ref);
        each.take(each.scales(s, {0.0, 0.0, weight == nullptr ? 1.0 : static_cast<double>(weight[i])}, 0.0, -1), -1);
        write_gradient<V>(team, each);
        clear<V>(team, gradient, row.end, row.begin + from.in.vocabulary);
    }
};

template <class Out>
problem check_outputs(const char* function, const softmax_outputs<Out>& out, std::int64_t rows) {
    return first_of(check_per_row(function, "logp", out.logp, rows), check_per_row(function, "entropy", out.entropy, rows),
                    check_per_row(function, "sum_squares", out.sum_squares, rows),
                    check_per_row(function, "lse", out.lse, rows));
}

}  // namespace detail

// logp[i] = log softmax(z_i)[targets[i]], and what else is asked for, in one read of the logits. A row of nothing but -inf
// has log-probability -inf and entropy 0. Memory: the outputs. O(rows · vocabulary).
// Errors: sizes, null pointers, options out of range, a target of a row that counts outside the vocabulary.
template <class Executor, class T, class Targets, class Out>
void token_logp(const Executor& exec, const logits_view<T>& in, const Targets& targets, const head_options& options,
                const softmax_outputs<Out>& out) {
    constexpr const char* function = "token_logp";
    const view ids(targets);
    detail::require(detail::check_head(function, in, options));
    detail::require(detail::check_rows_to_read(exec, function, ids, in, options));
    detail::require(detail::first_of(
        detail::check_outputs(function, out, in.rows),
        detail::check_reach(exec, function, detail::named("logp", out.logp), detail::named("entropy", out.entropy),
                            detail::named("sum_squares", out.sum_squares), detail::named("lse", out.lse))));
    using detail::softmax_wants;
    detail::with_input(in, in, ids.data(), options, detail::used_by_mask{in.mask}, [&]<class Input>(const Input& from) {
        const auto run = [&]<softmax_wants Wants>(std::integral_constant<softmax_wants, Wants>) {
            exec.teams(in.rows, detail::logp_rows<Wants, Input, Out>{from, {.logp = out.logp.data(),
                                                                            .entropy = out.entropy.data(),
                                                                            .sum_squares = out.sum_squares.data(),
                                                                            .lse = out.lse.data()}});
        };
        if (out.sum_squares.data() != nullptr) {
            run(std::integral_constant<softmax_wants, softmax_wants::entropy | softmax_wants::squares>());
        } else if (out.entropy.data() != nullptr) {
            run(std::integral_constant<softmax_wants, softmax_wants::entropy>());
        } else {
            run(std::integral_constant<softmax_wants, softmax_wants::log_sum>());
        }
    });
}
template <class Executor, class T, class Targets, class Out>
void token_logp(const Executor& exec, const logits_view<T>& in, const Targets& targets, const head_options& options,
                view<Out> logp, view<Out> entropy = {}) {
    token_logp(exec, in, targets, options, softmax_outputs<Out>{.logp = logp, .entropy = entropy});
}

// The chain rule back to the logits: gradient = d_logp · dlogp/dlogits + d_entropy · dH/dlogits, at the same positions as
// the logits; +0.0 in rows that do not count and in columns that only pad. Either slope may be an empty view. gradient may
// be the logits' own memory. One read and one write with what was saved of the forward pass, else one read more.
// Errors: as token_logp().
template <class Executor, class T, class Targets, class G, class Out>
void d_logits(const Executor& exec, const logits_view<T>& in, const Targets& targets, const head_options& options,
              view<const G> d_logp, view<const G> d_entropy, view<Out> gradient, const softmax_saved& saved = {}) {
    constexpr const char* function = "d_logits";
    const view ids(targets);
    detail::require(detail::check_head(function, in, options));
    detail::require(detail::check_rows_to_read(exec, function, ids, in, options));
    detail::require(detail::check_reach(exec, function, detail::named("gradient", gradient), detail::named("d_logp", d_logp),
                                        detail::named("d_entropy", d_entropy), detail::named("saved.lse", saved.lse),
                                        detail::named("saved.entropy", saved.entropy)));
    detail::require(detail::first_of(
        detail::check_per_row(function, "d_logp", d_logp, in.rows),
        detail::check_per_row(function, "d_entropy", d_entropy, in.rows),
        detail::check_per_row(function, "saved.lse", saved.lse, in.rows),
        detail::check_per_row(function, "saved.entropy", saved.entropy, in.rows),
        detail::wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions")));
    detail::with_input(in, in, ids.data(), options, detail::used_by_mask{in.mask}, [&]<class Input>(const Input& from) {
        const auto run = [&]<bool WithEntropy>(std::bool_constant<WithEntropy>) {
            exec.teams(in.rows, detail::d_logits_rows<WithEntropy, false, Input, G, Out>{
                                    from, d_logp.data(), d_entropy.data(), nullptr,
                                    {.lse = saved.lse.data(), .entropy = saved.entropy.data()}, gradient.data()});
        };
        if (d_entropy.data() != nullptr) run(std::true_type());
        else run(std::false_type());
    });
}

// KL(π ‖ π_ref) over the whole vocabulary, per token (K05), and, if `gradient` is given, weight[i] · dKL/dlogits (weight 1
// if left out). The options hold for both. gradient may be the logits' own memory. +inf where π gives weight to what π_ref
// excludes. As a part of a loss: exact_kl (see head/loss.hpp). Errors: as token_logp().
template <class Executor, class T, class R, class Out, class Gradient = Out>
void full_kl(const Executor& exec, const logits_view<T>& in, const logits_view<R>& ref, const head_options& options,
             view<Out> kl, view<const Out> weight = {}, view<Gradient> gradient = {}) {
    constexpr const char* function = "full_kl";
    detail::require(detail::check_head(function, in, options));
    detail::require(detail::check_reference(function, in, ref));
    detail::require(detail::first_of(detail::check_per_row(function, "kl", kl, in.rows),
                                     detail::check_per_row(function, "weight", weight, in.rows)));
    detail::require(detail::check_reach(exec, function, detail::named("logits", in.data), detail::named("logits_ref", ref.data),
                                        detail::named("bias", options.bias), detail::named_pointer{"mask", in.mask},
                                        detail::named("kl", kl), detail::named("weight", weight),
                                        detail::named("gradient", gradient)));
    if (gradient.data() != nullptr) {
        detail::require(detail::wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions"));
    }
    const std::int64_t* no_targets = nullptr;
    detail::with_input(in, ref, no_targets, options, detail::used_by_mask{in.mask}, [&]<class Input>(const Input& from) {
        exec.teams(in.rows, detail::full_kl_rows<Input, Out, Gradient>{from, kl.data(), weight.data(), gradient.data()});
    });
}

}  // namespace grpo::inline v0
