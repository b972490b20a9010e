// Token rewards and returns: outcome placement, KL in the reward, discounted returns, REINFORCE++, ReMax, turn returns.
// Every function runs over the active tokens as if the others were cut out (R1.37) and writes 0 where not active.
#pragma once

#include <cstdint>

#include <grpo/advantage/group.hpp>
#include <grpo/advantage/layout.hpp>
#include <grpo/advantage/normalise.hpp>
#include <grpo/advantage/whiten.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

namespace detail {

// G_t = r_t + γ G_{t+1}; G_t - baseline of the sequence, if there is one, goes to `advantage`.
template <class Layout, class T, class G, class A = G>
struct return_rows {
    using compute = compute_of<T, G>;
    static constexpr bool takes_packs = true;
    Layout layout;
    const T* reward;
    double gamma;
    G* returns;
    const T* baseline = nullptr;
    A* advantage = nullptr;

    GRPO_HD std::int64_t entries() const { return walked_entries(layout); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        along(team, layout, row, *this);
    }

    template <class Team, class Place>
    GRPO_HD void walk(Team& team, std::int64_t row, std::int64_t begin, std::int64_t end, Place place) const {
        using V = typename Team::template vector<compute>;
        const V zero(constant<V>(0));
        const V factor(constant<V>(gamma));
        const V base(constant<V>(baseline == nullptr ? 0.0 : static_cast<double>(baseline[row])));
        const auto element = [&](cursor<V> k) {
            const cursor<V> at = place(k);
            return step_or_hole<V>(layout.active(at), factor, at.load(reward));
        };
        const auto write = [&](cursor<V> k, const V& g) {
            const cursor<V> at = place(k);
            const mask_t<V> use = layout.active(at);
            at.store(returns, math::select<V>(use, g, zero));
            if (advantage != nullptr) at.store(advantage, math::select<V>(use, V(g - base), zero));
        };
        team.template scan<V>(begin, end, element, write);
    }
};

template <class Layout, class T, class Out>
struct spread_rows {
    Layout layout;
    const T* per_sequence;
    Out* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute_of<T, Out>>;
        const V x(static_cast<element_t<V>>(per_sequence[row]));
        team.template each<V>(layout.begin(row), layout.end(row), [&](cursor<V> at) {
            at.store(out, math::select<V>(layout.active(at), x, V(constant<V>(0))));
        });
    }
};

template <class Layout, class T, class Out>
struct placed_rows {
    Layout layout;
    const T* reward;
    Out* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const auto last = team.template fold<tally<0, 1>, double>(
            layout.begin(row), layout.end(row), [&](auto& state, cursor<double> at) {
                if (layout.active(at)) state.maximum[0] = math::max(state.maximum[0], static_cast<double>(at.i));
            });
        team.template each<double>(layout.begin(row), layout.end(row), [&](cursor<double> at) {
            out[at.i] = static_cast<double>(at.i) == last.maximum[0] ? static_cast<Out>(reward[row]) : Out(0);
        });
    }
    // A single lane needs one pass, from the end.
    template <one_lane Team>
    GRPO_HD void operator()(Team&, std::int64_t row) const {
        bool placed = false;
        for (std::int64_t i = layout.end(row); i-- > layout.begin(row);) {
            const bool here = !placed && layout.active(cursor<float>{i});
            out[i] = here ? static_cast<Out>(reward[row]) : Out(0);
            placed = placed || here;
        }
    }
};

template <class Layout, class Term, class T, class Out>
struct penalised_rows {
    Layout layout;
    Term estimator;
    const T* reward;
    const T* logp_old;
    const T* logp_ref;
    double beta;
    Out* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute_of<T, Out>>;
        const V factor(constant<V>(beta));
        team.template each<V>(layout.begin(row), layout.end(row), [&](cursor<V> at) {
            token<V> x;
            x.logp = at.load(logp_old);
            x.logp_old = x.logp;
            x.logp_ref = at.load(logp_ref);
            const V shaped = at.load(reward) - factor * estimator(x);
            at.store(out, math::select<V>(layout.active(at), shaped, V(constant<V>(0))));
        });
    }
};

}  // namespace detail

// One value per sequence to its active tokens.
template <class Executor, shape Shape, class PerSequence, class Out>
void spread_to_tokens(const Executor& exec, const Shape& layout, const PerSequence& values_of, Out&& out) {
    constexpr const char* function = "spread_to_tokens";
    const view x(values_of);
    const view to(out);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wants(function, "values_of", x, layout.rows(), "sequences"));
    detail::require(detail::wants(function, "out", to, layout.extent(), "positions"));
    detail::require(detail::check_reach(exec, function, detail::named("values_of", x), detail::named("out", to)));
    exec.teams(layout.rows(), detail::spread_rows<Shape, detail::plain<decltype(x[0])>, detail::plain<decltype(to[0])>>{
                                  layout, x.data(), to.data()});
}
template <shape Shape, class PerSequence, class Out>
void spread_to_tokens(const Shape& layout, const PerSequence& values_of, Out&& out) {
    spread_to_tokens(serial{}, layout, values_of, out);
}

// The sequence's reward on its last active token, 0 on the others. A sequence without active tokens keeps nothing.
template <class Executor, shape Shape, class Reward, class Out>
void place_outcome(const Executor& exec, const Shape& layout, const Reward& reward, Out&& reward_token) {
    constexpr const char* function = "place_outcome";
    const view r(reward);
    const view to(reward_token);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wants(function, "reward", r, layout.rows(), "sequences"));
    detail::require(detail::wants(function, "reward_token", to, layout.extent(), "positions"));
    detail::require(detail::check_reach(exec, function, detail::named("reward", r), detail::named("reward_token", to)));
    exec.teams(layout.rows(), detail::placed_rows<Shape, detail::plain<decltype(r[0])>, detail::plain<decltype(to[0])>>{
                                  layout, r.data(), to.data()});
}
template <shape Shape, class Reward, class Out>
void place_outcome(const Shape& layout, const Reward& reward, Out&& reward_token) {
    place_outcome(serial{}, layout, reward, reward_token);
}

// r_t - beta·kl_t with any KL term as the estimator, between logp_old and logp_ref (arXiv 2203.02155, eq. 2 per token).
// All arrays have one storage type; out may be the reward's own memory.
template <class Executor, shape Shape, class Term, class Reward, class LogpOld, class LogpRef, class Out>
void kl_in_reward(const Executor& exec, const Shape& layout, const Term& estimator, double beta, const Reward& reward,
                  const LogpOld& logp_old, const LogpRef& logp_ref, Out&& out) {
    constexpr const char* function = "kl_in_reward";
    const view r(reward);
    const view old(logp_old);
    const view ref(logp_ref);
    const view to(out);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::below(function, "beta", beta, 0));
    detail::require(detail::validate_term(estimator, function));
    detail::require(detail::wants(function, "reward", r, layout.extent(), "positions"));
    detail::require(detail::wants(function, "logp_old", old, layout.extent(), "positions"));
    detail::require(detail::wants(function, "logp_ref", ref, layout.extent(), "positions"));
    detail::require(detail::wants(function, "out", to, layout.extent(), "positions"));
    using T = detail::plain<decltype(r[0])>;
    using To = detail::plain<decltype(to[0])>;
    detail::require(detail::check_reach(exec, function, detail::named("reward", r), detail::named("logp_old", old),
                                        detail::named("logp_ref", ref), detail::named("out", to)));
    exec.teams(layout.rows(), detail::penalised_rows<Shape, Term, T, To>{layout, estimator, r.data(), old.data(),
                                                                         ref.data(), beta, to.data()});
}
template <shape Shape, class Term, class Reward, class LogpOld, class LogpRef, class Out>
void kl_in_reward(const Shape& layout, const Term& estimator, double beta, const Reward& reward,
                  const LogpOld& logp_old, const LogpRef& logp_ref, Out&& out) {
    kl_in_reward(serial{}, layout, estimator, beta, reward, logp_old, logp_ref, out);
}

// G_t = r_t + gamma·G_{t+1}. Also turn returns (R_i = r_i + discount·R_{i+1}): the shape is then over turns, a row per
// conversation. In place if returns is reward.
template <class Executor, token_layout Layout, class Reward, class Returns>
void discounted_returns(const Executor& exec, const Layout& layout, double gamma, const Reward& reward,
                        Returns&& returns) {
    constexpr const char* function = "discounted_returns";
    const view r(reward);
    const view g(returns);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::below(function, "gamma", gamma, 0));
    detail::require(detail::wants(function, "reward", r, layout.extent(), "positions"));
    detail::require(detail::wants(function, "returns", g, layout.extent(), "positions"));
    using rows = detail::return_rows<Layout, detail::plain<decltype(r[0])>, detail::plain<decltype(g[0])>>;
    detail::require(detail::check_reach(exec, function, detail::named("reward", r), detail::named("returns", g)));
    exec.teams(layout.rows(), rows{layout, r.data(), gamma, g.data()});
}
template <token_layout Layout, class Reward, class Returns>
void discounted_returns(const Layout& layout, double gamma, const Reward& reward, Returns&& returns) {
    discounted_returns(serial{}, layout, gamma, reward, returns);
}

// REINFORCE++ (arXiv 2501.03262): discounted returns of the token rewards, whitened over the batch. The returns stay
// un-whitened. OpenRLHF's whitening is {.ddof = 0, .eps = 1e-4, .placement = eps_placement::floor}.
struct reinforce_plus_plus_options {
    double gamma = 1.0;
    whiten_options whitening{};
};
template <class Executor, shape Shape, class Reward, class Advantage, class Returns>
void reinforce_plus_plus(const Executor& exec, const Shape& layout, const Reward& reward, Advantage&& advantage,
                         Returns&& returns, const reinforce_plus_plus_options& options = {}) {
    const view a(advantage);
    detail::require(options.whitening.validate("reinforce_plus_plus"));
    detail::require(detail::check_shape(exec, "reinforce_plus_plus", layout));
    detail::require(detail::wants("reinforce_plus_plus", "advantage", a, layout.extent(), "positions"));
    detail::require(detail::check_reach(exec, "reinforce_plus_plus", detail::named("advantage", a)));
    discounted_returns(exec, layout, options.gamma, reward, returns);
    whiten(exec, layout, returns, advantage, options.whitening);
}
template <shape Shape, class Reward, class Advantage, class Returns>
void reinforce_plus_plus(const Shape& layout, const Reward& reward, Advantage&& advantage, Returns&& returns,
                         const reinforce_plus_plus_options& options = {}) {
    reinforce_plus_plus(serial{}, layout, reward, advantage, returns, options);
}

// REINFORCE++ with the group's mean as baseline (arXiv 2501.03262): r_i - mean, spread to the tokens, whitened over the
// batch's tokens. `centred` receives r_i - mean, one per sequence. verl keeps a lone sample's reward.
struct reinforce_plus_plus_baseline_options {
    singleton_rule singleton = singleton_rule::raw_reward;
    whiten_options whitening{};
};
template <class Executor, shape Groups, shape Shape, class Reward, class Centred, class Advantage>
void reinforce_plus_plus_baseline(const Executor& exec, const Groups& groups, const Shape& layout, const Reward& reward,
                                  Centred&& centred, Advantage&& advantage,
                                  const reinforce_plus_plus_baseline_options& options = {}) {
    constexpr const char* function = "reinforce_plus_plus_baseline";
    const view a(advantage);
    detail::require(options.whitening.validate(function));
    detail::require(detail::check_shape(exec, function, groups));
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wrong_size(function, "layout's rows", layout.rows(), groups.extent(), "sequences"));
    detail::require(detail::wants(function, "advantage", a, layout.extent(), "positions"));
    detail::require(detail::check_reach(exec, function, detail::named("advantage", a)));
    group_normalised(exec, groups, reward, centred, {.scale = group_scale::none, .singleton = options.singleton});
    spread_to_tokens(exec, layout, centred, advantage);
    whiten(exec, layout, advantage, advantage, options.whitening);
}
template <shape Groups, shape Shape, class Reward, class Centred, class Advantage>
void reinforce_plus_plus_baseline(const Groups& groups, const Shape& layout, const Reward& reward, Centred&& centred,
                                  Advantage&& advantage, const reinforce_plus_plus_baseline_options& options = {}) {
    reinforce_plus_plus_baseline(serial{}, groups, layout, reward, centred, advantage, options);
}

// ReMax (arXiv 2310.10505): G_t = Σ_{u>=t} r_u, A_t = G_t - b with b the reward of the greedy answer, one per sequence.
template <class Executor, shape Shape, class Reward, class Baseline, class Advantage, class Returns>
void remax(const Executor& exec, const Shape& layout, const Reward& reward, const Baseline& baseline,
           Advantage&& advantage, Returns&& returns) {
    constexpr const char* function = "remax";
    const view r(reward);
    const view b(baseline);
    const view a(advantage);
    const view g(returns);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wants(function, "reward", r, layout.extent(), "positions"));
    detail::require(detail::wants(function, "baseline", b, layout.rows(), "sequences"));
    detail::require(detail::wants(function, "advantage", a, layout.extent(), "positions"));
    detail::require(detail::wants(function, "returns", g, layout.extent(), "positions"));
    using rows = detail::return_rows<Shape, detail::plain<decltype(r[0])>, detail::plain<decltype(g[0])>,
                                     detail::plain<decltype(a[0])>>;
    detail::require(detail::check_reach(exec, function, detail::named("reward", r), detail::named("baseline", b),
                                        detail::named("advantage", a), detail::named("returns", g)));
    exec.teams(layout.rows(), rows{layout, r.data(), 1.0, g.data(), b.data(), a.data()});
}
template <shape Shape, class Reward, class Baseline, class Advantage, class Returns>
void remax(const Shape& layout, const Reward& reward, const Baseline& baseline, Advantage&& advantage,
           Returns&& returns) {
    remax(serial{}, layout, reward, baseline, advantage, returns);
}

}  // namespace grpo::inline v0
