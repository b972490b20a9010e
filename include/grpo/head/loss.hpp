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

    std::byte* end;  // of what is used

    head_memory(view<std::byte> workspace, int workers, std::int64_t n, std::int64_t columns) {
        const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
        std::byte* at = workspace.data() + (64 - address % 64) % 64;
        const auto take = [&]<class X>(X*& p) {
            p = reinterpret_cast<X*>(at);
            at += 8 * n;
        };
        row_bytes = (columns + 31) / 16 * 64;
        rows = at;
        at += workers * row_bytes;
        take(token.logp), take(token.entropy), take(token.kl);
        take(token.d_logp), take(token.d_entropy), take(token.d_kl);
        take(lse), take(entropy), take(lse_ref), take(kl);
        end = at;
    }

    // What is wanted of the tokens is written where it is wanted.
    void give(const token_outputs<C>& out) {
        if (out.logp.data() != nullptr) token.logp = out.logp.data();
        if (out.entropy.data() != nullptr) token.entropy = out.entropy.data();
        if (out.full_kl.data() != nullptr) token.kl = out.full_kl.data();
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
problem check_token_outputs(const char* function, const token_outputs<C>& out, std::int64_t tokens) {
    return first_of(check_per_row(function, "logp", out.logp, tokens), check_per_row(function, "entropy", out.entropy, tokens),
                    check_per_row(function, "full_kl", out.full_kl, tokens));
}
// Targets and options that a batch's positions are read with; those in another memory are not looked at.
template <class Exec, class Index, class Shape>
problem check_targets_of(const Exec& exec, const char* function, const view<Index>& ids, const Shape& layout,
                         const head_options& options, std::int64_t vocabulary) {
    const auto active = [&](std::int64_t i) { return layout.active(cursor<float>{i}); };
    if constexpr (on_host<Exec>) {
        return check_targets(function, ids, layout.extent(), options.columns(vocabulary), active);
    } else {
        return first_of(check_target_array(function, ids, layout.extent()),
                        check_reach(exec, function, named("targets", ids), named("bias", options.bias)));
    }
}
inline problem check_workspace(const char* function, view<std::byte> workspace, std::int64_t bytes) {
    if (workspace.size() >= bytes) return null_pointer(function, "workspace", workspace.data(), bytes);
    return complain(function, "workspace", "has %lld bytes, but %lld are needed", static_cast<long long>(workspace.size()),
                    static_cast<long long>(bytes));
}

// Some rows of logits on their way through a loss; H, K: whether it reads entropies, full KLs.
template <bool H, bool K, class Exec, class Shape, class T, class R, class Index, class C, class Out>
struct head_run {
    const Exec& exec;
    Shape layout;
    const logits_view<T>& in;
    const logits_view<R>& reference;
    const std::int64_t* positions;  // of the rows among the tokens, or null
    const Index* target;
    const head_options& options;
    const head_memory<C>& memory;
    Out* gradient;

    // Their log-probabilities, when no gradient is wanted or the slopes need a whole sequence.
    void measure() const {
        with_all([&]<class Input>(const Input& from) {
            const token_arrays<C>& t = memory.token;
            exec.teams(in.rows, logp_rows<wanted(H, K), Input, C>{
                                    from, {t.logp, H ? t.entropy : nullptr, nullptr, K ? t.kl : nullptr, memory.lse,
                                           memory.entropy, memory.lse_ref, memory.kl}});
        });
    }
    // From their slopes to the gradient.
    void spread() const {
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
            const auto slopes = slopes_for<Exec>(rows);
            using body = fused_tokens<H, K, Input, std::remove_const_t<decltype(slopes)>, C, Out>;
            using compute = typename body::compute;
            const body all{from, slopes, memory.token, gradient, reinterpret_cast<compute*>(memory.rows),
                           memory.row_bytes / static_cast<std::int64_t>(sizeof(compute))};
            exec.teams(all.pieces(), all);
        });
    }

private:
    template <class F>
    void with_all(F&& f) const {
        with_input(in, reference, target, options, used_by_shape<Shape>{layout}, f, positions);
    }
};

// f with the outputs of a loss that the head needs.
template <class C, class F>
decltype(auto) with_slopes(const token_arrays<C>& t, std::int64_t n, F&& f) {
    return f(d_logp(view<C>(t.d_logp, n)), d_entropy(view<C>(t.d_entropy, n)), d_full_kl(view<C>(t.d_kl, n)));
}

// A loss by way of a head. `source` has the types logits, reference and gradient, and
//   prepare()                before anything else, once nothing can be wrong any more
//   each(with_gradient, f)   f(logits_view, logits_view of the reference, positions, gradient) for all rows, in parts;
//                            with_gradient: what f wrote is taken further
// Everything that can be wrong with the logits was checked; here, what can be wrong with the loss.
template <class Source, class Exec, class Term, bool Diagnosed, class Index, class Batch, class C>
loss_target<Exec> evaluate_head(const char* function, const Source& source, const Exec& exec,
                          const objective<Term, Diagnosed>& loss, const Index* target, const head_options& options,
                          const Batch& b, double denominator, bool with_gradient, const head_memory<C>& memory) {
    loss_target<Exec> total{};
    const std::int64_t n = b.layout.extent();
    const auto whole = with_head(b, memory.token, n);
    reduced(loss.term, [&]<class Reduced>(const Reduced& term) {
        constexpr bool H = (Reduced::needs & input::entropy::bit) != 0;
        constexpr bool K = (Reduced::needs & input::full_kl::bit) != 0;
        check_inputs<Reduced, std::remove_const_t<decltype(whole)>, Diagnosed>();
        require(first_of(check_denominator(function, denominator), validate_term(loss.term, function),
                         check_values<Reduced>(loss.over, whole, function), source.check(function, K)));
        require(check_batch_reach(exec, function, b, Diagnosed ? ~0u : Reduced::needs));
        source.prepare();
        const auto each = [&](bool wanted, auto&& f) {
            source.each(wanted, [&]<class T, class R, class Out>(const logits_view<T>& in, const logits_view<R>& ref,
                                                                 const std::int64_t* positions, Out* gradient) {
                f(head_run<H, K, Exec, std::remove_cvref_t<decltype(b.layout)>, T, R, Index, C, Out>{
                    exec, b.layout, in, ref, positions, target, options, memory, gradient});
            });
        };
        const auto evaluate_all = [&](const auto&... outputs) {
            require(run<Diagnosed>(total, exec, term, loss.over, loss.policy, whole, denominator, function, outputs...));
        };
        if (!with_gradient) {
            each(false, [](const auto& rows) { rows.measure(); });
            evaluate_all();
        } else if constexpr (statistics_of<Reduced>() > 0) {
            each(false, [](const auto& rows) { rows.measure(); });
            with_slopes(memory.token, n, evaluate_all);
            each(true, [](const auto& rows) { rows.spread(); });
        } else {
            const auto one = with_slopes(memory.token, n, [&](const auto&... outputs) {
                return rows_of<false>(term, loss.over, loss.policy, whole, denominator, outputs...);
            });
            each(true, [&](const auto& rows) { rows.fuse(one); });
            evaluate_all();
        }
    });
    return total;
}

// Logits that lie in memory: all rows at once.
template <class T, class R, class Out>
struct logits_source {
    logits_view<T> in;
    logits_view<R> reference;
    Out* gradient;

    problem check(const char* function, bool reads_reference) const {
        return reads_reference ? check_reference(function, in, reference) : problem{};
    }
    void prepare() const {}
    template <class F>
    void each(bool, F&& f) const {
        const std::int64_t* all = nullptr;
        f(in, reference, all, gradient);
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
[[nodiscard]] detail::loss_target<Exec> evaluate_logits(Exec&& exec, const objective<Term, Diagnosed>& loss,
                                          const logits_view<T>& in, const Targets& targets,
                                          const head_options& options, const Batch& b, double denominator,
                                          view<Out> gradient, view<std::byte> workspace,
                                          const token_outputs<detail::loss_compute<T, Batch>>& out = {},
                                          const logits_view<R>& reference = {}) {
    constexpr const char* function = "evaluate_logits";
    using C = detail::loss_compute<T, Batch>;
    const view ids(targets);
    detail::require(detail::first_of(detail::check_head(function, in, options), detail::check_whole(function, options),
                                     detail::check_shape(exec, function, b.layout)));
    detail::require(detail::wrong_size(function, "logits", in.rows, b.layout.extent(), "positions"));
    detail::require(detail::check_targets_of(exec, function, ids, b.layout, options, in.vocabulary));
    detail::require(detail::check_reach(exec, function, detail::named("logits", in.data), detail::named("gradient", gradient),
                                        detail::named("workspace", workspace), detail::named("logits_ref", reference.data),
                                        detail::named("logp", out.logp), detail::named("entropy", out.entropy),
                                        detail::named("full_kl", out.full_kl)));
    if (gradient.data() != nullptr) {
        detail::require(detail::wrong_size(function, "gradient", gradient.size(), in.layout().extent(), "positions"));
    }
    detail::require(detail::first_of(
        detail::check_workspace(function, workspace, evaluate_logits_workspace(exec.size(), in.rows, in.vocabulary)),
        detail::check_token_outputs(function, out, in.rows)));
    detail::head_memory<C> memory(workspace, exec.size(), in.rows, in.vocabulary);
    memory.give(out);
    const detail::logits_source<T, R, Out> source{in, reference, gradient.data()};
    return detail::evaluate_head(function, source, exec, loss, ids.data(), options, b, denominator,
                                 gradient.data() != nullptr, memory);
}

}  // namespace grpo::inline v0
