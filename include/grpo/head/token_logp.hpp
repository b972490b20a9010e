// Log-probabilities of the chosen tokens from logits and the way back, and the KL over the whole vocabulary.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
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

template <class T, class Reading>
GRPO_HD logits_row<T, Reading> row_of(const logits_view<T>& in, const Reading& reading, std::int64_t columns,
                                      std::int64_t row) {
    const std::int64_t begin = padded(in.rows, in.vocabulary, in.stride).begin(row);
    return {in.data.data(), begin, begin + columns, reading};
}

// A row's softmax in one read; with a reference row, the sums of their divergence as well.
template <softmax_wants Wants, class V, class Team, class Row, class Ref = no_reference>
GRPO_HD softmax_row measure(Team& team, const Row& row, const Ref& ref = {}) {
    softmax_exponent<V> e(row.reading.factor);
    const softmax_step<Wants, V, Row, Ref, std::nullptr_t> step{row, ref, nullptr, e};
    return softmax_row(stream<softmax_sums, V>(team, row.begin, row.end, step));
}

// The columns that only pad a row.
template <class V, class Team, class Out>
GRPO_HD void clear(Team& team, Out* out, std::int64_t begin, std::int64_t end) {
    team.template each<V>(begin, end, [&](cursor<V> at) { at.store(out, V(constant<V>(0))); });
}

template <softmax_wants Wants, class T, class Reading, class Index, class Out>
struct logp_rows {
    using compute = head_compute<T>;
    logits_view<T> in;
    Reading reading;
    std::int64_t columns;
    std::int64_t first_token;
    const Index* target;
    softmax_outputs<Out> out;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        using V = typename Team::template vector<compute>;
        if (!in.active(i)) {
            if (team.leader()) write(i, softmax_row(), 0.0);
            return;
        }
        const auto row = row_of(in, reading, columns, i);
        const softmax_row s = measure<Wants, V>(team, row);
        if (!team.leader()) return;
        double logp = 0;
        if (out.logp.data() != nullptr) {
            const std::int64_t chosen = row.begin + static_cast<std::int64_t>(target[i]) - first_token;
            logp = s.log_probability(row.template at<V>(chosen) * softmax_exponent<V>(reading.factor).factor());
        }
        write(i, s, logp);
    }

private:
    GRPO_HD void write(std::int64_t i, const softmax_row& s, double logp) const {
        if (out.logp.data() != nullptr) out.logp[i] = static_cast<Out>(logp);
        if (out.entropy.data() != nullptr) out.entropy[i] = static_cast<Out>(s.entropy);
        if (out.sum_squares.data() != nullptr) out.sum_squares[i] = static_cast<Out>(s.sum_squares);
        if (out.lse.data() != nullptr) out.lse[i] = s.lse;
    }
};

template <bool WithEntropy, class T, class Reading, class Index, class G, class Out>
struct d_logits_rows {
    using compute = head_compute<T>;
    logits_view<T> in;
    Reading reading;
    std::int64_t columns;
    std::int64_t first_token;
    const Index* target;
    const G* d_logp;
    const G* d_entropy;
    softmax_saved saved;
    Out* gradient;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        using V = typename Team::template vector<compute>;
        const auto row = row_of(in, reading, columns, i);
        if (!in.active(i)) return clear<V>(team, gradient, row.begin, row.begin + in.vocabulary);
        const softmax_row s = of_row<V>(team, row, i);
        softmax_gradient<WithEntropy, false, V, logits_row<T, Reading>, no_reference, Out> each(row, {}, gradient);
        each.prepare(team, s, slopes(i), row.begin + static_cast<std::int64_t>(target[i]) - first_token);
        sweep<V>(team, row.begin, row.end, each);
        clear<V>(team, gradient, row.end, row.begin + in.vocabulary);
    }

private:
    GRPO_HD softmax_slopes slopes(std::int64_t i) const {
        return {d_logp == nullptr ? 0.0 : static_cast<double>(d_logp[i]),
                d_entropy == nullptr ? 0.0 : static_cast<double>(d_entropy[i]), 0.0};
    }
    template <class V, class Team, class Row>
    GRPO_HD softmax_row of_row(Team& team, const Row& row, std::int64_t i) const {
        if (saved.lse.data() == nullptr || (WithEntropy && saved.entropy.data() == nullptr)) {
            return measure<WithEntropy ? softmax_wants::entropy : softmax_wants::log_sum, V>(team, row);
        }
        softmax_row s;
        s.lse = saved.lse[i];
        s.empty = s.lse <= lowest;
        if constexpr (WithEntropy) s.entropy = saved.entropy[i];
        return s;
    }
};

// KL(π ‖ π_ref) of one row, and optionally weight times its gradient π (log π - log π_ref - KL).
template <class T, class R, class Reading, class Out, class Gradient>
struct full_kl_rows {
    using compute = head_compute<std::conditional_t<std::same_as<T, double>, T, R>>;
    logits_view<T> in;
    logits_view<R> ref;
    Reading reading;
    std::int64_t columns;
    view<Out> kl;
    view<const Out> weight;
    view<Gradient> gradient;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        using V = typename Team::template vector<compute>;
        const auto row = row_of(in, reading, columns, i);
        const auto ref_row = row_of(ref, reading, columns, i);
        const double lse_ref = in.active(i) ? measure<softmax_wants::log_sum, V>(team, ref_row).lse : 0.0;
        const reference_row<V, logits_row<R, Reading>> beside(ref_row, ref_row.begin - row.begin, lse_ref);
        const softmax_row s = in.active(i) ? measure<softmax_wants::divergence, V>(team, row, beside) : softmax_row();
        if (team.leader() && kl.data() != nullptr) kl[i] = static_cast<Out>(s.divergence);
        if (gradient.data() == nullptr) return;
        if (!in.active(i)) return clear<V>(team, gradient.data(), row.begin, row.begin + in.vocabulary);
        using rows = logits_row<T, Reading>;
        softmax_gradient<false, false, V, rows, reference_row<V, logits_row<R, Reading>>, Gradient> each(row, beside, gradient.data());
        const double slope = weight.data() == nullptr ? 1.0 : static_cast<double>(weight[i]);
        each.prepare(team, s, {0.0, 0.0, slope}, -1);
        sweep<V>(team, row.begin, row.end, each);
        clear<V>(team, gradient.data(), row.end, row.begin + in.vocabulary);
    }
};

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
    const std::int64_t columns = options.columns(in.vocabulary);
    detail::require(detail::check_ids(function, ids, in, options));
    detail::require(detail::first_of(detail::check_per_row(function, "logp", out.logp, in.rows),
                                     detail::check_per_row(function, "entropy", out.entropy, in.rows),
                                     detail::check_per_row(function, "sum_squares", out.sum_squares, in.rows),
                                     detail::check_per_row(function, "lse", out.lse, in.rows)));
    using Index = std::remove_cvref_t<decltype(ids[0])>;
    using detail::softmax_wants;
    detail::with_reading(options, [&]<class Reading>(const Reading& reading) {
        const auto run = [&]<softmax_wants Wants>(std::integral_constant<softmax_wants, Wants>) {
            exec.teams(in.rows, detail::logp_rows<Wants, T, Reading, Index, Out>{in, reading, columns, options.first_token,
                                                                                 ids.data(), out});
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
    const std::int64_t columns = options.columns(in.vocabulary);
    detail::require(detail::check_ids(function, ids, in, options));
    detail::require(detail::first_of(
        detail::check_per_row(function, "d_logp", d_logp, in.rows),
        detail::check_per_row(function, "d_entropy", d_entropy, in.rows),
        detail::check_per_row(function, "saved.lse", saved.lse, in.rows),
        detail::check_per_row(function, "saved.entropy", saved.entropy, in.rows),
        detail::wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions")));
    using Index = std::remove_cvref_t<decltype(ids[0])>;
    detail::with_reading(options, [&]<class Reading>(const Reading& reading) {
        const auto run = [&]<bool WithEntropy>(std::bool_constant<WithEntropy>) {
            exec.teams(in.rows, detail::d_logits_rows<WithEntropy, T, Reading, Index, G, Out>{
                                    in, reading, columns, options.first_token, ids.data(), d_logp.data(),
                                    d_entropy.data(), saved, gradient.data()});
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
    if (gradient.data() != nullptr) {
        detail::require(detail::wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions"));
    }
    detail::with_reading(options, [&]<class Reading>(const Reading& reading) {
        exec.teams(in.rows, detail::full_kl_rows<T, R, Reading, Out, Gradient>{
                                in, ref, reading, options.columns(in.vocabulary), kl, weight, gradient});
    });
}

}  // namespace grpo::inline v0
