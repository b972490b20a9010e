// Generalised advantage estimation (arXiv 1506.02438, eq. 16) and its VAPO form (arXiv 2504.05118).
//
//   const grpo::gae_inputs<float> in{.reward = r, .value = v};
//   grpo::gae(shape, in, {.gamma = 1, .lambda = 0.95}, advantages, returns);
//
// shape: padded{B, T} or ragged{cu_seqlens}, time_major{T, B}, each with .where(mask). The recursion runs over the
// active tokens as if the others were cut out (R1.37); 0 is written where not active. Flags of masked tokens are not
// read.
#pragma once

#include <cstdint>

#include <grpo/advantage/layout.hpp>
#include <grpo/advantage/normalise.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// reward and value: one per position. What is left empty does not apply.
template <class T, class Flag = std::uint8_t>
struct gae_inputs {
    view<const T> reward{};
    view<const T> value{};
    view<const Flag> terminated{};    // the episode ends with this step: no value follows (wins over truncated)
    view<const Flag> truncated{};     // the episode is cut after this step: bootstrap[t] is the value that follows
    view<const T> bootstrap{};        // read only where truncated
    view<const T> discount{};         // replaces gamma, step by step; 0 ends an episode
    view<const T> lambda_token{};     // replaces lambda, step by step
    view<const T> lambda_sequence{};  // replaces lambda, one per sequence

    problem validate(const char* function, std::int64_t positions, std::int64_t sequences) const {
        const char* const of = "positions";
        if (const problem p = detail::wants(function, "reward", reward, positions, of)) return p;
        if (const problem p = detail::wants(function, "value", value, positions, of)) return p;
        if (const problem p = detail::may_have(function, "terminated", terminated, positions, of)) return p;
        if (const problem p = detail::may_have(function, "truncated", truncated, positions, of)) return p;
        if (truncated.data() != nullptr) {
            if (const problem p = detail::wants(function, "bootstrap", bootstrap, positions, of)) return p;
        }
        if (const problem p = detail::may_have(function, "discount", discount, positions, of)) return p;
        if (const problem p = detail::may_have(function, "lambda_token", lambda_token, positions, of)) return p;
        return detail::may_have(function, "lambda_sequence", lambda_sequence, sequences, "sequences");
    }
};

struct gae_options {
    double gamma = 1.0;
    double lambda = 1.0;

    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "gamma", gamma, 0),
                                detail::below(function, "lambda", lambda, 0));
    }
};

// λ = clip(1 - 1/max(alpha·n, 1), 0, 1) for a sequence of n active tokens (arXiv 2504.05118).
GRPO_HD double length_adaptive_lambda(double alpha, std::int64_t n) {
    const double scaled = alpha * static_cast<double>(n);
    return 1.0 - 1.0 / (scaled > 1.0 ? scaled : 1.0);
}

namespace detail {

// What a recursion writes: the advantage, or the return A + V, or both.
enum class gae_output { both, advantage, returns };

// δ_t = r_t + γ V_{t+1} - V_t;  A_t = δ_t + γλ A_{t+1};  return_t = A_t + V_t. An element of the scan is A -> δ + γλ A.
template <class Layout, class T, class Flag, class A, class R>
struct gae_rows {
    using compute = compute_of<T, A, R>;
    static constexpr bool takes_packs = true;  // a device's lanes compute on several tokens at once
    static constexpr int blocks_per_multiprocessor = 2;  // at least: a scan of packs needs the registers
    Layout layout;
    gae_inputs<T, Flag> x;
    gae_options options;
    double alpha;  // above 0: the length-adaptive λ
    gae_output what;
    A* advantage;
    R* returns;

    GRPO_HD std::int64_t entries() const { return walked_entries(layout); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        along(team, layout, row, *this);
    }

    template <class Team, class Place>
    GRPO_HD void walk(Team& team, std::int64_t row, std::int64_t begin, std::int64_t end, Place place) const {
        using V = typename Team::template vector<compute>;
        const V lambda(constant<V>(lambda_of(team, row)));
        const gae_rows self = *this;  // a copy that no output aliases: hyper-parameters stay in registers
        const auto value_of = [&]<class S>(cursor<S> k) {
            const cursor<S> at = place(k);
            return kept_value<S>{at.load(self.x.value.data()), self.layout.active(at)};
        };
        const auto element = [&](cursor<V> k, const V& next) { return self.element(place(k), next, lambda); };
        const auto write = [&](cursor<V> k, const V& a) {
            const cursor<V> at = place(k);
            const mask_t<V> use = self.layout.active(at);
            const V zero(constant<V>(0));
            if (self.what != gae_output::returns) at.store(self.advantage, math::select<V>(use, a, zero));
            if (self.what != gae_output::advantage) {
                at.store(self.returns, math::select<V>(use, V(a + at.load(self.x.value.data())), zero));
            }
        };
        if (plain()) {
            const V gamma(constant<V>(options.gamma));
            const auto delta = [&](cursor<V> k, const V& next) { return self.delta(place(k), gamma, next); };
            scan_uniform<V>(team, begin, end, V(gamma * lambda), value_of, delta, write);
        } else {
            team.template scan<V>(begin, end, value_of, element, write);
        }
    }

private:
    // Whether every token has the same γλ: nothing is masked, and no episode ends within a row.
    GRPO_HD bool plain() const {
        if constexpr (requires { layout.mask; }) {
            return false;
        } else {
            return x.terminated.data() == nullptr && x.truncated.data() == nullptr && x.discount.data() == nullptr &&
                   x.lambda_token.data() == nullptr;
        }
    }
    template <class V>
    GRPO_HD V delta(cursor<V> at, const V& gamma, const V& after) const {
        return at.load(x.reward.data()) + gamma * after - at.load(x.value.data());
    }
    template <class Team>
    GRPO_HD double lambda_of(Team& team, std::int64_t row) const {
        if (alpha > 0) return length_adaptive_lambda(alpha, active_tokens(team, layout, row));
        if (x.lambda_sequence.data() != nullptr) return static_cast<double>(x.lambda_sequence[row]);
        return options.lambda;
    }

    template <class V>
    GRPO_HD affine<V> element(cursor<V> at, const V& next, const V& lambda) const {
        const V zero(constant<V>(0));
        const V gamma = x.discount.data() == nullptr ? V(constant<V>(options.gamma)) : at.load(x.discount.data());
        V tail = gamma * (x.lambda_token.data() == nullptr ? lambda : at.load(x.lambda_token.data()));
        V after = next;
        if (x.truncated.data() != nullptr) {
            const mask_t<V> cut = at.marked(x.truncated.data());
            after = math::select<V>(cut, at.load(x.bootstrap.data()), after);
            tail = math::select<V>(cut, zero, tail);
        }
        if (x.terminated.data() != nullptr) {
            const mask_t<V> over = at.marked(x.terminated.data());
            after = math::select<V>(over, zero, after);
            tail = math::select<V>(over, zero, tail);
        }
        return step_or_hole<V>(layout.active(at), tail, delta(at, gamma, after));
    }
};

template <class Exec, class Layout, class T, class Flag, class A, class R>
void check_gae(const Exec& exec, const char* function, const Layout& layout, const gae_inputs<T, Flag>& x,
               const view<A>& advantage, const view<R>& returns) {
    require(check_shape(exec, function, layout));
    require(x.validate(function, layout.extent(), layout.rows()));
    require(wants(function, "advantage", advantage, layout.extent(), "positions"));
    require(wants(function, "returns", returns, layout.extent(), "positions"));
    require(check_reach(exec, function, named("reward", x.reward), named("value", x.value), named("terminated", x.terminated),
                        named("truncated", x.truncated), named("bootstrap", x.bootstrap), named("discount", x.discount),
                        named("lambda_token", x.lambda_token), named("lambda_sequence", x.lambda_sequence),
                        named("advantage", advantage), named("returns", returns)));
}

}  // namespace detail

// Advantages and returns A + V (of the advantages before any whitening). The outputs are no memory of the inputs.
template <class Executor, token_layout Layout, class T, class Flag, class Advantage, class Returns>
void gae(const Executor& exec, const Layout& layout, const gae_inputs<T, Flag>& x, const gae_options& options,
         Advantage&& advantage, Returns&& returns) {
    const view a(advantage);
    const view r(returns);
    detail::require(options.validate("gae"));
    detail::check_gae(exec, "gae", layout, x, a, r);
    using A = detail::plain<decltype(a[0])>;
    using R = detail::plain<decltype(r[0])>;
    exec.teams(layout.rows(), detail::gae_rows<Layout, T, Flag, A, R>{layout, x, options, 0.0, detail::gae_output::both,
                                                                      a.data(), r.data()});
}

template <token_layout Layout, class T, class Flag, class Advantage, class Returns>
void gae(const Layout& layout, const gae_inputs<T, Flag>& x, const gae_options& options, Advantage&& advantage,
         Returns&& returns) {
    gae(serial{}, layout, x, options, advantage, returns);
}

// The policy's advantages with λ_policy, the critic's returns with λ_value. alpha > 0 makes λ_policy length-adaptive.
// Defaults: the paper's (arXiv 2504.05118); alpha 0 switches the adaptation off.
struct vapo_options {
    double gamma = 1.0;
    double lambda_policy = 0.95;
    double lambda_value = 1.0;
    double alpha = 0.05;

    problem validate(const char* function) const {
        return detail::first_of(
            detail::below(function, "gamma", gamma, 0), detail::below(function, "lambda_policy", lambda_policy, 0),
            detail::below(function, "lambda_value", lambda_value, 0), detail::below(function, "alpha", alpha, 0));
    }
};

template <class Executor, token_layout Layout, class T, class Flag, class Advantage, class Returns>
void vapo(const Executor& exec, const Layout& layout, const gae_inputs<T, Flag>& x, const vapo_options& options,
          Advantage&& advantage, Returns&& returns) {
    const view a(advantage);
    const view r(returns);
    detail::require(options.validate("vapo"));
    detail::check_gae(exec, "vapo", layout, x, a, r);
    using rows = detail::gae_rows<Layout, T, Flag, detail::plain<decltype(a[0])>, detail::plain<decltype(r[0])>>;
    exec.teams(layout.rows(), rows{layout,
                                   x,
                                   {options.gamma, options.lambda_policy},
                                   options.alpha,
                                   detail::gae_output::advantage,
                                   a.data(),
                                   r.data()});
    exec.teams(
        layout.rows(),
        rows{layout, x, {options.gamma, options.lambda_value}, 0.0, detail::gae_output::returns, a.data(), r.data()});
}

template <token_layout Layout, class T, class Flag, class Advantage, class Returns>
void vapo(const Layout& layout, const gae_inputs<T, Flag>& x, const vapo_options& options, Advantage&& advantage,
          Returns&& returns) {
    vapo(serial{}, layout, x, options, advantage, returns);
}

}  // namespace grpo::inline v0
