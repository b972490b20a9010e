// From hidden states to the loss and the gradients of the states and of the head's weight, in chunks of tokens: logits of all
// tokens never exist at once.
//
//   logits = hidden · weightᵀ (+ bias),   d_hidden = d_logits · weight,   d_weight += d_logitsᵀ · hidden
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/head/gemm.hpp>
#include <grpo/head/linear_rows.hpp>
#include <grpo/head/loss.hpp>
#include <grpo/objective.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// A linear head over hidden states: hidden [tokens, width], weight [vocabulary, width], both row-major and dense. L: what the
// logits of a chunk are kept in; see rounded_logits().
template <class T, class L = detail::head_compute<T>>
struct linear_view {
    static_assert(std::is_same_v<L, detail::head_compute<T>> || std::is_same_v<L, T>);
    view<const T> hidden;
    view<const T> weight;
    std::int64_t tokens = 0;
    std::int64_t vocabulary = 0;
    std::int64_t width = 0;

    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "tokens", static_cast<double>(tokens), 0),
                                detail::below(function, "vocabulary", static_cast<double>(vocabulary), 1),
                                detail::below(function, "width", static_cast<double>(width), 1),
                                detail::wrong_size(function, "hidden", hidden.size(), tokens * width, "positions"),
                                detail::wrong_size(function, "weight", weight.size(), vocabulary * width, "positions"),
                                detail::null_pointer(function, "hidden", hidden.data(), hidden.size()),
                                detail::null_pointer(function, "weight", weight.data(), weight.size()));
    }
};
template <class Hidden, class Weight>
auto linear(const Hidden& hidden, const Weight& weight, std::int64_t tokens, std::int64_t vocabulary, std::int64_t width) {
    const view states(hidden);
    const view entries(weight);
    using T = std::remove_cvref_t<decltype(states[0])>;
    return linear_view<T>{{states.data(), states.size()}, {entries.data(), entries.size()}, tokens, vocabulary, width};
}

// The same head with logits in the type of its inputs, as frameworks compute them in 16 bits: 2 bytes a logit of a chunk
// instead of 6 (a float, and its gradient). A logit is then rounded (by 2^-9 of itself in bfloat16, 2^-12 in float16), which
// shows in logp: 0.03 for a logit of 16 in bfloat16. For a GEMM policy that writes that type: cublas_gemm, onednn_gemm.
template <class T>
linear_view<T, T> rounded_logits(const linear_view<T>& head) {
    return {head.hidden, head.weight, head.tokens, head.vocabulary, head.width};
}

// Where the gradients of a linear head go; an empty view: not wanted. G: float, or double for double.
template <class G>
struct linear_gradients {
    view<G> hidden = {};  // [tokens, width], written; +0.0 for tokens that do not count
    view<G> weight = {};  // [vocabulary, width], added to: set it to 0 before the first of several calls
    view<G> bias = {};    // [vocabulary], added to
};

namespace detail {

// A stretch of the logits that chunks of tokens share, and products made of it.
inline constexpr std::int64_t columns_of_a_piece = 4096;
inline std::int64_t padded_columns(std::int64_t columns) { return (columns + 15) / 16 * 16; }
inline std::int64_t whole_lines(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Bytes that one token of a chunk takes: logits, their gradient where that is of another type, the reference's logits,
// its hidden states gathered, and their gradient.
template <class T, class L>
std::int64_t bytes_of_a_token(std::int64_t vocabulary, std::int64_t width, std::int64_t reference_width) {
    const std::int64_t row = padded_columns(vocabulary) * static_cast<std::int64_t>(sizeof(L));
    const std::int64_t narrow = std::is_same_v<T, L> ? 0 : padded_columns(vocabulary) * static_cast<std::int64_t>(sizeof(T));
    // The reference's states may be of any type, double at most.
    const auto hidden = static_cast<std::int64_t>(sizeof(T)) * width + 8 * reference_width;
    return row + narrow + (reference_width > 0 ? row : 0) + hidden + width * static_cast<std::int64_t>(sizeof(head_compute<T>));
}

// c[m,n] = beta c + a b in pieces that do not depend on who computes them: the same bits for any number of threads.
template <class Gemm, class A, class B, class C>
struct product_pieces {
    const Gemm& gemm;
    std::int64_t m, n, k;
    operand<A> a;
    operand<B> b;
    gemm_scale<C> beta;
    C* c;
    std::int64_t stride;
    bool by_rows;
    std::int64_t piece;

    template <class Exec>
    void run(const Exec& exec) const {
        const std::int64_t all = by_rows ? m : n;
        if constexpr (on_host<Exec>) exec.teams((all + piece - 1) / piece, *this);
        else gemm.multiply(m, n, k, a, b, beta, c, stride);
    }
    template <class Team>
    void operator()(Team& team, std::int64_t index) const {
        if (!team.leader()) return;
        const std::int64_t all = by_rows ? m : n;
        const std::int64_t first = index * piece;
        const std::int64_t count = all - first < piece ? all - first : piece;
        operand<A> x = a;
        operand<B> y = b;
        if (by_rows) x.data += first * (a.transposed ? 1 : a.stride);
        else y.data += first * (b.transposed ? b.stride : 1);
        gemm.multiply(by_rows ? count : m, by_rows ? n : count, k, x, y, beta, c + first * (by_rows ? stride : 1), stride);
    }
};

// The sum of each column of d_logits.
template <class D, class G>
struct bias_columns {
    const D* d_logits;
    std::int64_t rows;
    std::int64_t stride;
    G* bias;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t column) const {
        if (!team.leader()) return;
        double sum = 0;
        for (std::int64_t i = 0; i < rows; ++i) sum += static_cast<double>(static_cast<G>(d_logits[i * stride + column]));
        bias[column] += static_cast<G>(sum);
    }
};

// Hidden states as a source of logits, chunk by chunk.
template <class Exec, class Gemm, class Uses, class T, class L, class R, class C>
struct linear_source {
    using G = head_compute<T>;
    const Exec& exec;
    const Gemm& gemm;
    const linear_view<T, L>& in;
    const linear_view<R>& reference;
    const linear_gradients<G>& gradients;
    Uses uses;
    token_arrays<C> token;
    std::int64_t* positions;  // room for those of the tokens that count
    std::int64_t chunk;       // tokens
    std::byte* memory;

    problem check(const char* function, bool reads_reference) const {
        if (!reads_reference) return {};
        return first_of(reference.validate(function),
                        wrong_size(function, "reference's tokens", reference.tokens, in.tokens, "tokens"),
                        wrong_size(function, "reference's vocabulary", reference.vocabulary, in.vocabulary, "entries"));
    }

    // What the head would write for the tokens that do not count, which it never sees.
    void prepare() const {
        if constexpr (!on_host<Exec>) {
            exec.teams(in.tokens, count_positions{positions});
        } else {
            for (std::int64_t i = 0; i < in.tokens; ++i) {
                if (uses(i) != row_use::masked) continue;
                token.logp[i] = token.entropy[i] = token.kl[i] = C(0);
                if (gradients.hidden.data() == nullptr) continue;
                for (std::int64_t k = 0; k < in.width; ++k) gradients.hidden[i * in.width + k] = G(0);
            }
        }
    }

    template <class F>
    void each(bool with_gradient, F&& f) const {
        const std::int64_t count = find_positions();
        const std::int64_t stride = padded_columns(in.vocabulary);
        std::byte* at = memory;
        const auto take = [&]<class X>(X*, std::int64_t entries) {
            X* const p = reinterpret_cast<X*>(at);
            at += whole_lines(entries * static_cast<std::int64_t>(sizeof(X)));
            return p;
        };
        L* const logits = take(static_cast<L*>(nullptr), chunk * stride);
        T* d_logits = nullptr;
        if constexpr (std::is_same_v<T, L>) d_logits = logits;
        else d_logits = take(d_logits, chunk * stride);
        G* const d_hidden = take(static_cast<G*>(nullptr), chunk * in.width);
        T* const gathered = take(static_cast<T*>(nullptr), chunk * in.width);
        L* const logits_ref = reference.width > 0 ? take(static_cast<L*>(nullptr), chunk * stride) : nullptr;
        R* const gathered_ref = take(static_cast<R*>(nullptr), chunk * reference.width);
        for (std::int64_t first = 0; first < count; first += chunk) {
            const std::int64_t n = count - first < chunk ? count - first : chunk;
            const std::int64_t* const which = positions + first;
            const T* const hidden = rows_of_chunk(in, first, n, gathered);
            forward(in, hidden, n, logits, stride);
            logits_view<L> of_reference;
            if (reference.width > 0) {
                forward(reference, rows_of_chunk(reference, first, n, gathered_ref), n, logits_ref, stride);
                of_reference = rows_view(logits_ref, n, stride);
            }
            f(rows_view(logits, n, stride), of_reference, which, d_logits);
            if (with_gradient) backward(hidden, first, n, d_logits, stride, d_hidden);
        }
    }

private:
    logits_view<L> rows_view(const L* data, std::int64_t n, std::int64_t stride) const {
        return {{data, (n - 1) * stride + in.vocabulary}, n, in.vocabulary, stride};
    }
    static bool adjacent(const std::int64_t* which, std::int64_t n) { return which[n - 1] - which[0] == n - 1; }

    // Of the tokens that are multiplied: those that count, or all where the host does not see which do. Returns how many.
    std::int64_t find_positions() const {
        if constexpr (!on_host<Exec>) {
            return in.tokens;
        } else {
            std::int64_t count = 0;
            for (std::int64_t i = 0; i < in.tokens; ++i) {
                const bool counts = uses(i) == row_use::active;
                if (counts) positions[count++] = i;
            }
            return count;
        }
    }
    // The hidden states of the tokens at n positions, where they lie or one after another.
    template <class X, class Y>
    const X* rows_of_chunk(const linear_view<X, Y>& from, std::int64_t first, std::int64_t n, X* gathered) const {
        if constexpr (!on_host<Exec>) {
            const X* const source = from.hidden.data() + first * from.width;
            exec.teams(n, rows_that_count<X, Uses>{source, gathered, n, from.width, first, uses, true});
        } else {
            const std::int64_t* const which = positions + first;
            if (adjacent(which, n)) return from.hidden.data() + which[0] * from.width;
            for (std::int64_t i = 0; i < n; ++i) {
                __builtin_memcpy(gathered + i * from.width, from.hidden.data() + which[i] * from.width,
                                 static_cast<std::size_t>(from.width) * sizeof(X));
            }
        }
        return gathered;
    }
    template <class X, class Y>
    void forward(const linear_view<X, Y>& from, const X* hidden, std::int64_t n, L* logits, std::int64_t stride) const {
        product_pieces<Gemm, X, X, L>{gemm,   n, from.vocabulary, from.width, {hidden, from.width, false},
                                      {from.weight.data(), from.width, true}, 0, logits, stride, false,
                                      columns_of_a_piece}.run(exec);
    }
    void backward(const T* hidden, std::int64_t first, std::int64_t n, T* d_logits, std::int64_t stride, G* d_hidden) const {
        if constexpr (!on_host<Exec>) {
            exec.teams(n, rows_outside<T, Uses>{d_logits, n, in.vocabulary, stride, first, uses});
        }
        if (gradients.hidden.data() != nullptr) {
            G* const to = place_of_chunk(first, n, d_hidden);
            product_pieces<Gemm, T, T, G>{gemm, n, in.width, in.vocabulary, {d_logits, stride, false},
                                          {in.weight.data(), in.width, false}, 0, to, in.width, false, 512}.run(exec);
            if (to == d_hidden) spread_rows(d_hidden, first, n);
        }
        if (gradients.weight.data() != nullptr) {
            product_pieces<Gemm, T, T, G>{gemm, in.vocabulary, in.width, n, {d_logits, stride, true},
                                          {hidden, in.width, false}, 1, gradients.weight.data(), in.width, true,
                                          columns_of_a_piece}.run(exec);
        }
        if (gradients.bias.data() != nullptr) {
            exec.teams(in.vocabulary, bias_columns<T, G>{d_logits, n, stride, gradients.bias.data()});
        }
    }
    // Where the gradient of n tokens may be written as one matrix: among the others', or in memory of its own.
    G* place_of_chunk(std::int64_t first, std::int64_t n, G* d_hidden) const {
        if constexpr (on_host<Exec>) {
            if (adjacent(positions + first, n)) return gradients.hidden.data() + positions[first] * in.width;
        }
        return d_hidden;
    }
    void spread_rows(const G* d_hidden, std::int64_t first, std::int64_t n) const {
        if constexpr (!on_host<Exec>) {
            G* const to = gradients.hidden.data() + first * in.width;
            exec.teams(n, rows_that_count<G, Uses>{d_hidden, to, n, in.width, first, uses, false});
        } else {
            for (std::int64_t i = 0; i < n; ++i) {
                __builtin_memcpy(gradients.hidden.data() + positions[first + i] * in.width, d_hidden + i * in.width,
                                 static_cast<std::size_t>(in.width) * sizeof(G));
            }
        }
    }
};

template <class T, class L, class G>
problem check_linear_gradients(const char* function, const linear_view<T, L>& in, const linear_gradients<G>& out) {
    const auto given = [&](const char* argument, const view<G>& x, std::int64_t entries) {
        return x.data() == nullptr && x.size() == 0 ? problem{} : wrong_size(function, argument, x.size(), entries, "entries");
    };
    return first_of(given("gradients.hidden", out.hidden, in.tokens * in.width),
                    given("gradients.weight", out.weight, in.vocabulary * in.width),
                    given("gradients.bias", out.bias, in.vocabulary));
}

}  // namespace detail

// Bytes of the workspace with which evaluate_hidden() takes `chunk` tokens at a time. A product of 256 tokens or more keeps a
// processor busy. reference_width: 0 without one.
template <class T, class L>
std::int64_t evaluate_hidden_workspace(int workers, const linear_view<T, L>& in, std::int64_t chunk,
                                       std::int64_t reference_width = 0) {
    return evaluate_logits_workspace(workers, in.tokens, in.vocabulary) + 8 * in.tokens + 8 * 64 +
           chunk * detail::bytes_of_a_token<T, L>(in.vocabulary, in.width, reference_width);
}

// Evaluates a loss from hidden states, and its gradients, in chunks of as many tokens as the workspace holds: three matrix
// products a chunk (four if the term couples the tokens of a sequence; one for the loss alone). Tokens that do not count
// cost nothing: only the others are multiplied. (With an executor of another memory all are, and those that do not count as
// zeros.)
//
//   gemm         who multiplies: plain_gemm, eigen_gemm, blas_gemm, onednn_gemm; cublas_gemm for grpo::cuda (see head/gemm.hpp)
//   in           hidden states and weight, one row per position of the batch's shape; float, double, bfloat16, float16
//   gradients    of the hidden states (written), the weight and the bias (added to)
//   workspace    evaluate_hidden_workspace(exec.size(), in, chunk) bytes; the chunk follows from its size, at least 1
//   reference    the linear head of π_ref, for losses with exact_kl; no gradient goes there
//   the rest     as in evaluate_logits()
//
// Logits are computed and the softmax taken in float (double for double), from logits rounded once if in is rounded_logits();
// d_logits have the type of the inputs.
// Errors: as evaluate_logits(), before anything is written.
template <class Exec, class Gemm, class Term, bool Diagnosed, class T, class L, class Targets, class Batch, class R = T>
[[nodiscard]] detail::loss_target<Exec> evaluate_hidden(Exec&& exec, const Gemm& gemm, const objective<Term, Diagnosed>& loss,
                                          const linear_view<T, L>& in, const Targets& targets, const head_options& options,
                                          const Batch& b, double denominator,
                                          const linear_gradients<detail::head_compute<T>>& gradients,
                                          view<std::byte> workspace,
                                          const token_outputs<detail::loss_compute<T, Batch>>& out = {},
                                          const linear_view<R>& reference = {}) {
    constexpr const char* function = "evaluate_hidden";
    static_assert(multiplies<Gemm, T, T, detail::head_compute<T>>,
                  "grpo: this GEMM policy does not multiply the type of the hidden states: 16-bit storage needs onednn_gemm "
                  "or plain_gemm");
    static_assert(multiplies<Gemm, T, T, L> && multiplies<Gemm, R, R, L>,
                  "grpo: this GEMM policy does not write logits of 16 bits: rounded_logits() needs cublas_gemm or onednn_gemm, "
                  "and a reference of the same type");
    using C = detail::loss_compute<T, Batch>;
    const view ids(targets);
    detail::require(detail::first_of(in.validate(function), options.validate(function, in.vocabulary),
                                     detail::check_whole(function, options),
                                     detail::check_shape(exec, function, b.layout)));
    detail::require(detail::wrong_size(function, "hidden", in.tokens, b.layout.extent(), "positions"));
    const int workers = exec.size();
    detail::require(detail::check_targets_of(exec, function, ids, b.layout, options, in.vocabulary));
    detail::require(detail::check_reach(
        exec, function, detail::named("hidden", in.hidden), detail::named("weight", in.weight),
        detail::named("gradients.hidden", gradients.hidden), detail::named("gradients.weight", gradients.weight),
        detail::named("gradients.bias", gradients.bias), detail::named("workspace", workspace),
        detail::named("reference's hidden", reference.hidden), detail::named("reference's weight", reference.weight),
        detail::named("logp", out.logp), detail::named("entropy", out.entropy), detail::named("full_kl", out.full_kl)));
    detail::require(detail::first_of(
        detail::check_linear_gradients(function, in, gradients), detail::check_token_outputs(function, out, in.tokens),
        detail::check_workspace(function, workspace, evaluate_hidden_workspace(workers, in, 1, reference.width))));
    detail::head_memory<C> memory(workspace, workers, in.tokens, in.vocabulary);
    memory.give(out);
    const std::int64_t rest = workspace.size() - evaluate_hidden_workspace(workers, in, 0, reference.width);
    const std::int64_t chunk = rest / detail::bytes_of_a_token<T, L>(in.vocabulary, in.width, reference.width);
    using uses = detail::used_by_shape<std::remove_cvref_t<decltype(b.layout)>>;
    const detail::linear_source<std::remove_cvref_t<Exec>, Gemm, uses, T, L, R, C> source{
        exec, gemm, in, reference, gradients, uses{b.layout}, memory.token,
        reinterpret_cast<std::int64_t*>(memory.end), chunk < in.tokens ? chunk : in.tokens,
        memory.end + detail::whole_lines(8 * in.tokens)};
    const bool with_gradient = gradients.hidden.data() != nullptr || gradients.weight.data() != nullptr ||
                               gradients.bias.data() != nullptr;
    return detail::evaluate_head(function, source, exec, loss, ids.data(), options, b, denominator, with_gradient, memory);
}

}  // namespace grpo::inline v0
