// From tokens to responses and back: sums of token log-probs that preference terms take, and the chain rule from a
// response's slope to its tokens. Every function is given the executor first; without one it runs serially.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// How a response's tokens become one number: their sum, or their mean (0 for a response without active tokens).
enum class pooling { sum, mean };

namespace detail {

template <class T>
using number_for = std::conditional_t<std::same_as<std::remove_cv_t<T>, double>, double, float>;

// out[row] (·)= Σ_t weight_t (x_t - minus_t), pooled; then e^ of it if `exponential`. Null arrays count as 1 and 0.
template <class Shape, class T, class M, class W, class Out>
struct pooled_rows {
    Shape layout;
    view<T> x;
    view<M> minus;
    view<W> weight;
    view<Out> out;
    pooling how = pooling::sum;
    bool exponential = false;
    bool multiply = false;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<number_for<T>>;
        const auto total = team.template fold<tally<1>, V>(
            layout.begin(row), layout.end(row), [&](auto& state, cursor<V> at) { this->one_token(state, at); });
        double pooled = total.sum[0];
        if (how == pooling::mean) {
            const std::int64_t n = count_active(team, layout, row);
            pooled = n > 0 ? pooled / static_cast<double>(n) : 0.0;
        }
        if (!team.leader()) return;
        if (exponential) pooled = math::exp(pooled);
        if (multiply) pooled *= static_cast<double>(out[row]);
        out[row] = static_cast<Out>(pooled);
    }

private:
    template <class State, class V>
    GRPO_HD void one_token(State& state, cursor<V> at) const {
        const mask_t<V> use = layout.active(at);
        if (!any(use)) return;
        using A = std::remove_reference_t<decltype(state.sum[0])>;
        V v = at.load(x.data());
        if (minus.data() != nullptr) v = v - at.load(minus.data());
        if (weight.data() != nullptr) v = v * at.load(weight.data());
        state.sum[0] = state.sum[0] + A(math::select<V>(use, v, V(constant<V>(0))));
    }
};

// d[t] = slope[row] · weight_t, divided by the active tokens for a mean; +0.0 where not active.
template <class Shape, class T, class W, class Out>
struct spread_slopes {
    Shape layout;
    view<T> slope;
    view<W> weight;
    view<Out> d;
    pooling how = pooling::sum;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<number_for<T>>;
        double share = static_cast<double>(slope[row]);
        if (how == pooling::mean) {
            const std::int64_t n = count_active(team, layout, row);
            share = n > 0 ? share / static_cast<double>(n) : 0.0;
        }
        const V s(constant<V>(share));
        team.template each<V>(layout.begin(row), layout.end(row), [&](cursor<V> at) {
            V v = s;
            if (weight.data() != nullptr) v = v * at.load(weight.data());
            at.store(d.data(), math::select<V>(layout.active(at), v, V(constant<V>(0))));
        });
    }
};

// A view of any container, with the element type as it is there.
template <class Container>
auto as_view(Container&& c) {
    return view(c);
}
template <class T>
auto nothing() {
    return view<const T>(nullptr, 0);
}

template <class Shape, class X>
problem check_tokens(const char* function, const char* argument, const Shape& layout, const X& x) {
    return first_of(wrong_size(function, argument, x.size(), layout.extent(), "positions"),
                    null_pointer(function, argument, x.data(), x.size()));
}
template <class Shape, class X>
problem check_rows(const char* function, const char* argument, const Shape& layout, const X& x) {
    return first_of(wrong_size(function, argument, x.size(), layout.rows(), "sequences"),
                    null_pointer(function, argument, x.data(), x.size()));
}

template <class Exec, class Shape, class X, class M, class W, class O>
void pool(Exec&& exec, const char* function, const Shape& layout, X x, M minus, W weight, O out, pooling how,
          bool exponential = false, bool multiply = false) {
    require(check_shape(exec, function, layout));
    require(first_of(check_tokens(function, "logp", layout, x), check_rows(function, "out", layout, out),
                     check_reach(exec, function, named("logp", x), named("log_collision", minus), named("token_weight", weight),
                                 named("out", out))));
    using element = std::remove_reference_t<decltype(x[0])>;
    using subtrahend = std::remove_reference_t<decltype(minus[0])>;
    using factor = std::remove_reference_t<decltype(weight[0])>;
    using result = std::remove_reference_t<decltype(out[0])>;
    exec.teams(layout.rows(), pooled_rows<Shape, element, subtrahend, factor, result>{
                                  layout, x, minus, weight, out, how, exponential, multiply});
}

}  // namespace detail

// out[s] = Σ_t logp_t over the active tokens of sequence s, or their mean.
template <class Exec, shape Shape, class X, class Out>
    requires(!shape<std::remove_cvref_t<Exec>>)
void sequence_logp(Exec&& exec, const Shape& layout, const X& logp, Out&& out, pooling how = pooling::sum) {
    const view x(logp);
    using T = std::remove_cvref_t<decltype(x[0])>;
    detail::pool(exec, "sequence_logp", layout, x, detail::nothing<T>(), detail::nothing<T>(), detail::as_view(out), how);
}
template <shape Shape, class X, class Out>
void sequence_logp(const Shape& layout, const X& logp, Out&& out, pooling how = pooling::sum) {
    sequence_logp(serial{}, layout, logp, out, how);
}

// out[s] = Σ_t token_weight_t · logp_t, e.g. with ld_weights.
template <class Exec, shape Shape, class X, class W, class Out>
    requires(!shape<std::remove_cvref_t<Exec>>)
void weighted_sequence_logp(Exec&& exec, const Shape& layout, const X& logp, const W& token_weight, Out&& out) {
    constexpr const char* function = "weighted_sequence_logp";
    const view x(logp);
    const view w(token_weight);
    using T = std::remove_cvref_t<decltype(x[0])>;
    if constexpr (!detail::on_host<Exec>) detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::check_tokens(function, "token_weight", layout, w));
    detail::pool(exec, function, layout, x, detail::nothing<T>(), w, detail::as_view(out), pooling::sum);
}
template <shape Shape, class X, class W, class Out>
void weighted_sequence_logp(const Shape& layout, const X& logp, const W& token_weight, Out&& out) {
    weighted_sequence_logp(serial{}, layout, logp, token_weight, out);
}

// The chain rule of sequence_logp: d_token[t] = slope[s] (over the active tokens of s for a mean), +0.0 where masked.
template <class Exec, shape Shape, class X, class Out>
    requires(!shape<std::remove_cvref_t<Exec>>)
void spread(Exec&& exec, const Shape& layout, const X& slope, Out&& d_token, pooling how = pooling::sum) {
    const view s(slope);
    const view d(d_token);
    using T = std::remove_reference_t<decltype(s[0])>;
    using D = std::remove_reference_t<decltype(d[0])>;
    detail::require(detail::check_shape(exec, "spread", layout));
    detail::require(detail::first_of(detail::check_rows("spread", "slope", layout, s),
                                     detail::check_tokens("spread", "d_token", layout, d),
                                     detail::check_reach(exec, "spread", detail::named("slope", s), detail::named("d_token", d))));
    exec.teams(layout.rows(), detail::spread_slopes<Shape, T, const T, D>{layout, s, {}, d, how});
}
template <shape Shape, class X, class Out>
void spread(const Shape& layout, const X& slope, Out&& d_token, pooling how = pooling::sum) {
    spread(serial{}, layout, slope, d_token, how);
}

// The chain rule of weighted_sequence_logp: d_token[t] = slope[s] · token_weight_t.
template <class Exec, shape Shape, class X, class W, class Out>
    requires(!shape<std::remove_cvref_t<Exec>>)
void weighted_spread(Exec&& exec, const Shape& layout, const X& slope, const W& token_weight, Out&& d_token) {
    constexpr const char* function = "weighted_spread";
    const view s(slope);
    const view w(token_weight);
    const view d(d_token);
    using T = std::remove_reference_t<decltype(s[0])>;
    using F = std::remove_reference_t<decltype(w[0])>;
    using D = std::remove_reference_t<decltype(d[0])>;
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::first_of(detail::check_rows(function, "slope", layout, s),
                                     detail::check_tokens(function, "token_weight", layout, w),
                                     detail::check_tokens(function, "d_token", layout, d),
                                     detail::check_reach(exec, function, detail::named("slope", s),
                                                         detail::named("token_weight", w), detail::named("d_token", d))));
    exec.teams(layout.rows(), detail::spread_slopes<Shape, T, F, D>{layout, s, w, d});
}
template <shape Shape, class X, class W, class Out>
void weighted_spread(const Shape& layout, const X& slope, const W& token_weight, Out&& d_token) {
    weighted_spread(serial{}, layout, slope, token_weight, d_token);
}

namespace detail {

// The weights of one response of each pair: as many active tokens as the shorter has count 1, the others alpha.
template <class Own, class Other, class T>
struct ld_rows {
    Own own;
    Other other;
    double alpha;
    T* weight;

    GRPO_HD std::int64_t entries() const { return own.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<double>;
        const V zero(constant<V>(0));
        const V one(constant<V>(1));
        const V tail(constant<V>(alpha));
        const V length(constant<V>(static_cast<double>(count_active(team, own, row))));
        const V shared(constant<V>(static_cast<double>(count_active(team, other, row))));
        const auto counted = [&](cursor<V> at) { return affine<V>{one, math::select<V>(own.active(at), one, zero)}; };
        team.template scan<V>(own.begin(row), own.end(row), counted, [&](cursor<V> at, const V& from_here) {
            const V earlier = length - from_here;  // active tokens
            at.store(weight, math::select<V>(own.active(at), math::select<V>(earlier < shared, one, tail), zero));
        });
    }
};

}  // namespace detail

// LD-DPO's token weights (arXiv 2409.06411): the first min(n_w, n_l) active tokens of both responses of a pair weigh 1,
// the tail of the longer one alpha, masked tokens 0. Row i of both shapes is pair i. Weigh the policy's and the
// reference's log-probs alike; then dpo. alpha 1 is DPO.
template <class Exec, shape W, shape L, class OutW, class OutL>
void ld_weights(const Exec& exec, const W& chosen_layout, const L& rejected_layout, double alpha, OutW&& chosen_weight,
                OutL&& rejected_weight) {
    constexpr const char* function = "ld_weights";
    const view w(chosen_weight);
    const view l(rejected_weight);
    using detail::require;
    require(detail::check_shape(exec, function, chosen_layout));
    require(detail::check_shape(exec, function, rejected_layout));
    require(detail::wrong_size(function, "rejected_layout", rejected_layout.rows(), chosen_layout.rows(), "pairs"));
    require(detail::first_of(detail::below(function, "alpha", alpha, 0.0),
                             detail::check_tokens(function, "chosen_weight", chosen_layout, w),
                             detail::check_tokens(function, "rejected_weight", rejected_layout, l),
                             detail::check_reach(exec, function, detail::named("chosen_weight", w), detail::named("rejected_weight", l))));
    const auto fill = [&](const auto& own, const auto& other, auto* weight) {
        using rows = detail::ld_rows<std::remove_cvref_t<decltype(own)>, std::remove_cvref_t<decltype(other)>,
                                     std::remove_pointer_t<decltype(weight)>>;
        exec.teams(own.rows(), rows{own, other, alpha, weight});
    };
    fill(chosen_layout, rejected_layout, w.data());
    fill(rejected_layout, chosen_layout, l.data());
}
template <shape W, shape L, class OutW, class OutL>
void ld_weights(const W& chosen_layout, const L& rejected_layout, double alpha, OutW&& chosen_weight, OutL&& rejected_weight) {
    ld_weights(serial{}, chosen_layout, rejected_layout, alpha, chosen_weight, rejected_weight);
}

// WPO's weight of a response (arXiv 2406.11827): e^mean_t(logp_t - log_collision_t), log_collision = log Σ_v p_v², the
// log-probability that two draws agree: lse(2z) - 2 lse(z) of the logits. 1 for a response without active tokens.
template <class Exec, shape Shape, class X, class Y, class Out>
    requires(!shape<std::remove_cvref_t<Exec>>)
void wpo_weights(Exec&& exec, const Shape& layout, const X& logp, const Y& log_collision, Out&& out) {
    const view x(logp);
    const view y(log_collision);
    using T = std::remove_cvref_t<decltype(x[0])>;
    if constexpr (!detail::on_host<Exec>) detail::require(detail::check_shape(exec, "wpo_weights", layout));
    detail::require(detail::check_tokens("wpo_weights", "log_collision", layout, y));
    detail::pool(exec, "wpo_weights", layout, x, y, detail::nothing<T>(), detail::as_view(out), pooling::mean, true);
}
template <shape Shape, class X, class Y, class Out>
void wpo_weights(const Shape& layout, const X& logp, const Y& log_collision, Out&& out) {
    wpo_weights(serial{}, layout, logp, log_collision, out);
}

// A pair's weight is the product over its two responses: this multiplies what wpo_weights wrote for the first.
template <class Exec, shape Shape, class X, class Y, class Out>
    requires(!shape<std::remove_cvref_t<Exec>>)
void multiply_wpo_weights(Exec&& exec, const Shape& layout, const X& logp, const Y& log_collision, Out&& out) {
    const view x(logp);
    const view y(log_collision);
    using T = std::remove_cvref_t<decltype(x[0])>;
    if constexpr (!detail::on_host<Exec>) detail::require(detail::check_shape(exec, "multiply_wpo_weights", layout));
    detail::require(detail::check_tokens("multiply_wpo_weights", "log_collision", layout, y));
    detail::pool(exec, "multiply_wpo_weights", layout, x, y, detail::nothing<T>(), detail::as_view(out), pooling::mean, true,
                 true);
}
template <shape Shape, class X, class Y, class Out>
void multiply_wpo_weights(const Shape& layout, const X& logp, const Y& log_collision, Out&& out) {
    multiply_wpo_weights(serial{}, layout, logp, log_collision, out);
}

}  // namespace grpo::inline v0
