// A loss from logits to its gradient over the logits, fused: log-probabilities are used where they are made.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/head/fused.hpp>
#include <grpo/head/logits.hpp>
#include <grpo/head/token_logp.hpp>
#include <grpo/objective.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// Bytes of the workspace that evaluate_logits() needs: 80 a token, and a row of `columns` floats for each of the executor's
// size() workers.
inline std::int64_t evaluate_logits_workspace(int workers, std::int64_t tokens, std::int64_t columns) {
    return 80 * tokens + 64 + static_cast<std::int64_t>(workers) * ((columns + 31) / 16 * 64);
}

// What evaluate_logits() may be asked for beside the loss and its gradient: one entry per position, +0.0 where masked, each
// an empty view if not wanted. C: float, or double if the logits or an input of the batch are double.
template <class C>
struct token_outputs {
    view<C> logp = {};     // for the next iterations' logp_old
    view<C> entropy = {};  // only if the loss reads it
    view<C> full_kl = {};  // only if the loss reads it
};

namespace detail {

template <class T, class Batch>
using loss_compute = std::conditional_t<std::same_as<T, double>, double, typename Batch::compute>;

// The workspace, cut up.
template <class C>
struct head_memory {
    token_arrays<C> token;
    double* lse;
    double* entropy;
    double* lse_ref;
    double* kl;
    std::byte* rows;
    std::int64_t row_bytes;

    head_memory(view<std::byte> workspace, std::int64_t n, std::int64_t columns) {
        const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
        std::byte* at = workspace.data() + (64 - address % 64) % 64;
        const auto take = [&]<class X>(X*& p) {
            p = reinterpret_cast<X*>(at);
            at += 8 * n;
        };
        row_bytes = (columns + 31) / 16 * 64;
        const auto workers = (workspace.size() - 80 * n - 64) / row_bytes;
        rows = at;
        at += workers * row_bytes;
        take(token.logp), take(token.entropy), take(token.kl);
        take(token.d_logp), take(token.d_entropy), take(token.d_kl);
        take(lse), take(entropy), take(lse_ref), take(kl);
    }
};

// A batch with what the head knows.
template <class C, class Shape, class... Fields>
auto with_head(const batch<Shape, Fields...>& b, const token_arrays<C>& token, std::int64_t n) {
    constexpr unsigned has = batch<Shape, Fields...>::has;
    static_assert((has & (input::logp::bit | input::entropy::bit | input::full_kl::bit)) == 0,
                  "grpo: logp, entropy and full_kl come from the logits: leave them out of the batch");
    return batch(b.layout, static_cast<const Fields&>(b)..., logp(view<const C>(token.logp, n)),
                 entropy(view<const C>(token.entropy, n)), full_kl(view<const C>(token.kl, n)));
}

template <class C>
void copy_out(view<C> to, const C* from) {
    for (std::int64_t i = 0; i < to.size(); ++i) to[i] = from[i];
}

template <class Batch, class T, class R, class Index, class C, class Out>
problem check_evaluate_logits(const char* function, int workers, const Batch& b, const logits_view<T>& in,
                              const logits_view<R>& reference, bool reads_reference, const view<Index>& ids,
                              const head_options& options, view<Out> gradient, view<std::byte> workspace,
                              const token_outputs<C>& out) {
    if (const problem p = first_of(check_head(function, in, options), b.layout.validate(function))) return p;
    if (const problem p = wrong_size(function, "logits", in.rows, b.layout.extent(), "positions")) return p;
    if (reads_reference) {
        if (const problem p = check_reference(function, in, reference)) return p;
    }
    const auto active = [&](std::int64_t i) { return b.layout.active(cursor<float>{i}); };
    if (const problem p = check_targets(function, ids, in.rows, options.columns(in.vocabulary), active)) return p;
    if (gradient.data() != nullptr) {
        if (const problem p = wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions")) return p;
    }
    const std::int64_t bytes = evaluate_logits_workspace(workers, in.rows, in.vocabulary);
    if (workspace.size() < bytes) {
        return complain(function, "workspace", "has %lld bytes, but %lld are needed",
                        static_cast<long long>(workspace.size()), static_cast<long long>(bytes));
    }
    return first_of(null_pointer(function, "workspace", workspace.data(), bytes),
                    check_per_row(function, "logp", out.logp, in.rows),
                    check_per_row(function, "entropy", out.entropy, in.rows),
                    check_per_row(function, "full_kl", out.full_kl, in.rows));
}

// The ways of a loss through the head. What they share: the logits, the options, the memory.
template <bool H, bool K, class Exec, class Shape, class T, class R, class Index, class C, class Out>
struct head_run {
    const Exec& exec;
    Shape layout;
    const logits_view<T>& in;
    const logits_view<R>& reference;
    const Index* target;
    const head_options& options;
    const head_memory<C>& memory;
    Out* gradient;

    // The log-probabilities of all tokens, when no gradient is wanted or the slopes need a whole sequence.
    void measure_all() const {
        with_all([&]<class Input>(const Input& from) {
            const token_arrays<C>& t = memory.token;
            exec.teams(in.rows, logp_rows<wanted(H, K), Input, C>{
                                    from, {t.logp, H ? t.entropy : nullptr, nullptr, K ? t.kl : nullptr, memory.lse,
                                           memory.entropy, memory.lse_ref, memory.kl}});
        });
    }
    // From the slopes of all tokens to the gradient.
    void spread_all() const {
        with_all([&]<class Input>(const Input& from) {
            const token_arrays<C>& t = memory.token;
            exec.teams(in.rows, d_logits_rows<H, K, Input, C, Out>{
                                    from, t.d_logp, H ? t.d_entropy : nullptr, K ? t.d_kl : nullptr,
                                    {memory.lse, memory.entropy, memory.lse_ref, memory.kl}, gradient});
        });
    }
    // Both, token by token; `rows` makes the slopes of one.
    template <class Rows>
    void fuse(const Rows& rows) const {
        with_all([&]<class Input>(const Input& from) {
            using team = typename Exec::team;
            using body = fused_tokens<H, K, Input, slopes_of_token<team>, C, Out>;
            using compute = typename body::compute;
            exec.teams((in.rows + body::chunk - 1) / body::chunk,
                       body{from, erased<team>(rows), memory.token, gradient, reinterpret_cast<compute*>(memory.rows),
                            memory.row_bytes / static_cast<std::int64_t>(sizeof(compute))});
        });
    }

private:
    template <class F>
    void with_all(F&& f) const {
        with_input(in, reference, target, options, used_by_shape<Shape>{layout}, f);
    }
};

}  // namespace detail

// Evaluates a loss from logits, and its gradient over them, in one read and one write of the logits (two reads more if the
// term couples the tokens of a sequence, as GSPO does).
//
//   exec         who walks the rows, and how
//   in           one row per position of the batch's shape: rows == shape.extent()
//   targets      one id per position; those of masked positions may be anything
//   batch        shape and inputs other than logp, entropy and full_kl, which come from the logits
//   denominator  as in evaluate()
//   gradient     d loss / d logits, at the logits' positions: their own memory, other memory, or an empty view for the loss
//                alone. float, bfloat16, float16 or double. Rows of masked positions are not read and get +0.0; so do
//                columns that only pad. What lies between rows of the shape stays as it is.
//   workspace    evaluate_logits_workspace(exec.size(), rows, vocabulary) bytes of the caller's; nothing else is allocated
//   reference    logits of π_ref, for losses with exact_kl
//
// A target whose logit is -inf gives a log-probability of -inf, which counts as a non-finite input (see nonfinite).
// The result is evaluate()'s of the same log-probabilities. Errors: as evaluate() and token_logp(), before anything is written.
template <class Exec, class Term, bool Diagnosed, class T, class Targets, class Batch, class Out, class R = T>
[[nodiscard]] loss_result evaluate_logits(Exec&& exec, const objective<Term, Diagnosed>& loss, const logits_view<T>& in,
                                          const Targets& targets, const head_options& options, const Batch& b,
                                          double denominator, view<Out> gradient, view<std::byte> workspace,
                                          const token_outputs<detail::loss_compute<T, Batch>>& out = {},
                                          const logits_view<R>& reference = {}) {
    constexpr const char* function = "evaluate_logits";
    using C = detail::loss_compute<T, Batch>;
    const view ids(targets);
    using Index = std::remove_cvref_t<decltype(ids[0])>;
    loss_result total;
    detail::reduced(loss.term, [&]<class Reduced>(const Reduced& term) {
        constexpr unsigned needs = Reduced::needs;
        detail::require(detail::check_evaluate_logits(function, exec.size(), b, in, reference,
                                                      (needs & input::full_kl::bit) != 0, ids, options, gradient,
                                                      workspace, out));
        const detail::head_memory<C> memory(workspace, in.rows, in.vocabulary);
        const auto whole = detail::with_head(b, memory.token, in.rows);
        const auto slope = [&](auto output) {
            const auto d_l = d_logp(view<C>(memory.token.d_logp, in.rows));
            const auto d_h = d_entropy(view<C>(memory.token.d_entropy, in.rows));
            const auto d_k = d_full_kl(view<C>(memory.token.d_kl, in.rows));
            return output(d_l, d_h, d_k);
        };
        detail::check_inputs<Reduced, std::remove_const_t<decltype(whole)>, Diagnosed>();
        detail::require(detail::first_of(detail::check_denominator(function, denominator),
                                         detail::validate_term(loss.term, function),
                                         detail::check_values<Reduced>(loss.over, whole, function)));
        using layout = std::remove_cvref_t<decltype(b.layout)>;
        constexpr bool with_entropy = (needs & input::entropy::bit) != 0;
        constexpr bool with_kl = (needs & input::full_kl::bit) != 0;
        const detail::head_run<with_entropy, with_kl, std::remove_cvref_t<Exec>, layout, T, R, Index, C, Out> run{
            exec, b.layout, in, reference, ids.data(), options, memory, gradient.data()};
        const auto evaluate_all = [&](const auto&... outputs) {
            detail::require(detail::run<Diagnosed>(total, exec, term, loss.over, loss.policy, whole, denominator, function,
                                                   outputs...));
        };
        if (gradient.data() == nullptr) {
            run.measure_all();
            evaluate_all();
        } else if constexpr (detail::statistics_of<Reduced>() > 0) {
            run.measure_all();
            slope(evaluate_all);
            run.spread_all();
        } else {
            run.fuse(slope([&](const auto&... outputs) {
                return detail::rows_of<false>(term, loss.over, loss.policy, whole, denominator, outputs...);
            }));
            evaluate_all();
        }
        detail::copy_out(out.logp, memory.token.logp);
        detail::copy_out(out.entropy, memory.token.entropy);
        detail::copy_out(out.full_kl, memory.token.kl);
    });
    return total;
}

}  // namespace grpo::inline v0
