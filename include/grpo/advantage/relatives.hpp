// Relatives of the group-normalised advantage, one number per sequence. All take groups (a shape over sequences, with
// where(valid) for rewards that cannot be scored) and write 0 for what is left out. Each has an executor as an optional first
// argument; in a device's memory rewards are not looked at beforehand, and singleton_rule::error is refused.
#pragma once

#include <cstdint>

#include <grpo/advantage/group.hpp>
#include <grpo/advantage/whiten.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// A_i = r_i - mean: Dr.GRPO (arXiv 2503.20783). The loss half of that method is aggregation::constant_length.
template <class Executor, shape Groups, class Reward, class Advantage>
void dr_grpo(const Executor& exec, const Groups& groups, const Reward& reward, Advantage&& advantage,
             singleton_rule singleton = singleton_rule::zero) {
    group_normalised(exec, groups, reward, advantage, {.scale = group_scale::none, .singleton = singleton});
}
template <shape Groups, class Reward, class Advantage>
void dr_grpo(const Groups& groups, const Reward& reward, Advantage&& advantage,
             singleton_rule singleton = singleton_rule::zero) {
    dr_grpo(serial{}, groups, reward, advantage, singleton);
}

// A_i = r_i - mean of the others (arXiv 2402.14740), then optionally normalised over the batch: TRL's RLOO with
// (A - mean) / (std + 1e-4). A lone sample: 0 (tunix, TRL), or its reward (verl).
struct rloo_options {
    singleton_rule singleton = singleton_rule::zero;
    bool batch_normalise = false;
    whiten_options batch{.ddof = 1, .eps = 1e-4, .placement = eps_placement::outside, .center = true};
};

template <class Executor, shape Groups, class Reward, class Advantage>
void rloo(const Executor& exec, const Groups& groups, const Reward& reward, Advantage&& advantage,
          const rloo_options& options = {}) {
    detail::require(options.batch.validate("rloo"));
    group_normalised(
        exec, groups, reward, advantage,
        {.baseline = group_baseline::leave_one_out, .scale = group_scale::none, .singleton = options.singleton});
    if (options.batch_normalise) whiten(exec, groups, advantage, advantage, options.batch);
}
template <shape Groups, class Reward, class Advantage>
void rloo(const Groups& groups, const Reward& reward, Advantage&& advantage, const rloo_options& options = {}) {
    rloo(serial{}, groups, reward, advantage, options);
}

// A_i = (r_i - mean)·alpha / norm with alpha = B / (rewards that are not 0, at least 1) (arXiv 2504.02546). B counts
// the valid rewards. verl keeps a lone sample's reward.
struct gpg_options {
    singleton_rule singleton = singleton_rule::raw_reward;
    double norm = 1.0;
};

namespace detail {

struct scored_rewards {
    std::int64_t valid = 0;
    std::int64_t scored = 0;  // not 0

    GRPO_HD friend scored_rewards operator+(const scored_rewards& a, const scored_rewards& b) {
        return {a.valid + b.valid, a.scored + b.scored};
    }
};
template <class Groups, class T>
struct scored_rows {
    Groups groups;
    const T* reward;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }

    template <class Team>
    GRPO_HD scored_rewards operator()(Team& team, std::int64_t row) const {
        const auto total = team.template fold<tally<2>, double>(
            groups.begin(row), groups.end(row), [&](auto& state, cursor<double> at) {
                if (!groups.active(at)) return;
                state.sum[0] += 1;
                state.sum[1] += static_cast<double>(reward[at.i]) != 0 ? 1 : 0;
            });
        return {static_cast<std::int64_t>(total.sum[0]), static_cast<std::int64_t>(total.sum[1])};
    }
};
// Times alpha / norm. Scored: the counts, or where they will be.
template <class Groups, class Out, class Scored>
struct gpg_rows {
    Groups groups;
    Scored counts;
    double norm;
    Out* advantage;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const scored_rewards& n = told(counts);
        const double scale = static_cast<double>(n.valid) / static_cast<double>(n.scored > 0 ? n.scored : 1) / norm;
        team.template each<double>(groups.begin(row), groups.end(row), [&](cursor<double> at) {
            advantage[at.i] = static_cast<Out>(static_cast<double>(advantage[at.i]) * scale);
        });
    }
};

}  // namespace detail

template <class Executor, shape Groups, class Reward, class Advantage>
void gpg_advantage(const Executor& exec, const Groups& groups, const Reward& reward, Advantage&& advantage,
                   const gpg_options& options = {}) {
    constexpr const char* function = "gpg_advantage";
    detail::require(options.norm > 0 ? problem{}
                                     : detail::complain(function, "norm", "is %g, but must be above %g", options.norm, 0.0));
    const view r(reward);
    const view a(advantage);
    detail::require(detail::check_groups_of(exec, function, groups, r, a, options.singleton));
    using T = detail::plain<decltype(r[0])>;
    using Out = detail::plain<decltype(a[0])>;
    const auto counts = detail::fold_rows<detail::scored_rewards>(detail::aside(exec), groups.rows(),
                                                                  detail::scored_rows<Groups, T>{groups, r.data()});
    dr_grpo(exec, groups, reward, advantage, options.singleton);
    exec.teams(groups.rows(), detail::gpg_rows<Groups, Out, std::remove_const_t<decltype(counts)>>{groups, counts, options.norm, a.data()});
}
template <shape Groups, class Reward, class Advantage>
void gpg_advantage(const Groups& groups, const Reward& reward, Advantage&& advantage, const gpg_options& options = {}) {
    gpg_advantage(serial{}, groups, reward, advantage, options);
}

namespace detail {

template <class Groups, class Tokens, class T, class Out>
struct opo_rows {
    Groups groups;
    Tokens tokens;
    const T* reward;
    Out* advantage;
    singleton_rule singleton;

    GRPO_HD std::int64_t entries() const { return tokens.extent(); }

    // A lane reads the rewards of those members alone that it writes.
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const std::int64_t begin = groups.begin(row);
        const std::int64_t end = groups.end(row);
        const members<Groups> in{groups};
        const auto range = team.template fold<extrema, double>(begin, end, [&](auto& state, cursor<double> at) {
            if (in(at.i)) extrema::add(state, static_cast<double>(reward[at.i]));
        });
        tally<2>::state<double> mine;
        for (std::int64_t i = begin; i < end; ++i) {
            if (!in(i)) continue;
            const double length = static_cast<double>(count_active(team, tokens, i));
            if (!falls_to(team, i - begin)) continue;
            mine.sum[0] += length;
            mine.sum[1] += length * (static_cast<double>(reward[i]) - range.least);
        }
        const auto total = team.template combine<tally<2>>(mine);
        const bool counted = total.sum[0] > 0;
        const bool lone = end - begin == 1 && singleton == singleton_rule::raw_reward;
        const double base = lone ? 0.0 : range.least + total.sum[1] / (counted ? total.sum[0] : 1.0);
        team.template each<double>(begin, end, [&](cursor<double> at) {
            const bool counts = in(at.i) && (counted || lone);
            advantage[at.i] = static_cast<Out>(counts ? static_cast<double>(reward[at.i]) - base : 0.0);
        });
    }
};

}  // namespace detail

// A_i = r_i - Σ n_j r_j / Σ n_j, the length-weighted baseline (arXiv 2505.23585). n_j: the active tokens of sequence j
// in `tokens`, a shape over tokens with one row per sequence. A group without any token gets 0. In place if advantage is reward.
template <class Executor, shape Groups, shape Tokens, class Reward, class Advantage>
void opo(const Executor& exec, const Groups& groups, const Tokens& tokens, const Reward& reward, Advantage&& advantage,
         singleton_rule singleton = singleton_rule::raw_reward) {
    constexpr const char* function = "opo";
    const view r(reward);
    const view a(advantage);
    detail::require(detail::check_groups_of(exec, function, groups, r, a, singleton));
    detail::require(detail::check_shape(exec, function, tokens));
    detail::require(detail::wrong_size(function, "tokens", tokens.rows(), groups.extent(), "sequences"));
    using T = detail::plain<decltype(r[0])>;
    using Out = detail::plain<decltype(a[0])>;
    exec.teams(groups.rows(), detail::opo_rows<Groups, Tokens, T, Out>{groups, tokens, r.data(), a.data(), singleton});
}
template <shape Groups, shape Tokens, class Reward, class Advantage>
void opo(const Groups& groups, const Tokens& tokens, const Reward& reward, Advantage&& advantage,
         singleton_rule singleton = singleton_rule::raw_reward) {
    opo(serial{}, groups, tokens, reward, advantage, singleton);
}

// Only the strictly best response scores, by its lead over the second best, divided by the group's deviation + eps
// (arXiv 2503.19595). A tie for the best gives 0 to all. advantage may be the reward's own memory.
struct pass_at_k_options {
    int ddof = 1;
    double eps = 1e-6;
    bool normalise = true;
    singleton_rule singleton = singleton_rule::zero;
};

namespace detail {

// The two greatest, and where the first of them is.
struct two_greatest {
    template <class>
    struct state {
        double best = -past_all;
        double second = -past_all;
        std::int64_t winner = -1;
    };
    template <class State>
    GRPO_HD static void merge(State& a, const State& b) {
        if (a.best < b.best) a = {b.best, a.best < b.second ? b.second : a.best, b.winner};
        else a.second = a.second < b.best ? b.best : a.second;
    }
};

template <class Groups, class T, class Out>
struct pass_at_k_rows {
    Groups groups;
    const T* reward;
    Out* advantage;
    pass_at_k_options options;
    static constexpr int entries_per_lane = 4;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const std::int64_t begin = groups.begin(row);
        const std::int64_t end = groups.end(row);
        const members<Groups> in{groups};
        const row_in_lanes<entries_per_lane, Team, members<Groups>, T> members_of(team, in, reward, row);
        const spread s = measure_together(members_of, count_active(team, groups, row));
        const auto top = team.template fold<two_greatest, double>(begin, end, [&](auto& state, cursor<double> at) {
            if (in(at.i)) two_greatest::merge(state, {static_cast<double>(reward[at.i]), -past_all, at.i});
        });
        const double variance = variance_of(s.m2, static_cast<double>(s.n), options.ddof);
        const double scale = options.normalise ? normalising_factor(variance, options.eps, eps_placement::outside) : 1.0;
        const bool kept = end - begin == 1 && options.singleton == singleton_rule::raw_reward;
        const double lead = s.n > 1 ? (top.best - top.second) * scale : kept ? top.best : 0.0;
        members_of.write(advantage, [&](std::int64_t i, bool, double) { return i == top.winner ? lead : 0.0; });
    }
};

}  // namespace detail

template <class Executor, shape Groups, class Reward, class Advantage>
void pass_at_k_advantage(const Executor& exec, const Groups& groups, const Reward& reward, Advantage&& advantage,
                         const pass_at_k_options& options = {}) {
    constexpr const char* function = "pass_at_k_advantage";
    const view r(reward);
    const view a(advantage);
    detail::require(group_options{.ddof = options.ddof, .eps = options.eps}.validate(function));
    detail::require(detail::check_groups_of(exec, function, groups, r, a, options.singleton));
    using T = detail::plain<decltype(r[0])>;
    using Out = detail::plain<decltype(a[0])>;
    exec.teams(groups.rows(), detail::pass_at_k_rows<Groups, T, Out>{groups, r.data(), a.data(), options});
}
template <shape Groups, class Reward, class Advantage>
void pass_at_k_advantage(const Groups& groups, const Reward& reward, Advantage&& advantage,
                         const pass_at_k_options& options = {}) {
    pass_at_k_advantage(serial{}, groups, reward, advantage, options);
}

namespace detail {

template <class Shape, class T, class Out>
struct raw_rows {
    Shape groups;
    const T* reward;
    Out* advantage;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        team.template each<double>(groups.begin(row), groups.end(row), [&](cursor<double> at) {
            advantage[at.i] = groups.active(at) ? static_cast<Out>(reward[at.i]) : Out(0);
        });
    }
};
template <class Shape, class Out>
struct clipped_rows {
    Shape layout;
    Out* advantage;
    double low;
    double high;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        team.template each<double>(layout.begin(row), layout.end(row), [&](cursor<double> at) {
            if (!layout.active(at)) return;
            const double x = static_cast<double>(advantage[at.i]);
            advantage[at.i] = static_cast<Out>(x < low ? low : (high < x ? high : x));
        });
    }
};

}  // namespace detail

// A = r, NeMo RL's raw reward; whiten() follows where wanted. In place if advantage is reward.
template <class Executor, shape Groups, class Reward, class Advantage>
void raw_reward(const Executor& exec, const Groups& groups, const Reward& reward, Advantage&& advantage) {
    const view r(reward);
    const view a(advantage);
    detail::require(detail::check_groups_of(exec, "raw_reward", groups, r, a, singleton_rule::zero));
    using T = detail::plain<decltype(r[0])>;
    using Out = detail::plain<decltype(a[0])>;
    exec.teams(groups.rows(), detail::raw_rows<Groups, T, Out>{groups, r.data(), a.data()});
}
template <shape Groups, class Reward, class Advantage>
void raw_reward(const Groups& groups, const Reward& reward, Advantage&& advantage) {
    raw_reward(serial{}, groups, reward, advantage);
}

// A = min(max(A, low), high) where the shape is active, in place; elsewhere untouched.
template <class Executor, shape Shape, class Advantage>
void clip_advantage(const Executor& exec, const Shape& layout, Advantage&& advantage, double low, double high) {
    constexpr const char* function = "clip_advantage";
    const view a(advantage);
    detail::require(detail::below(function, "high", high, low));
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::check_array(exec, function, "advantage", a, layout.extent(), "positions"));
    using Out = detail::plain<decltype(a[0])>;
    exec.teams(layout.rows(), detail::clipped_rows<Shape, Out>{layout, a.data(), low, high});
}
template <shape Shape, class Advantage>
void clip_advantage(const Shape& layout, Advantage&& advantage, double low, double high) {
    clip_advantage(serial{}, layout, advantage, low, high);
}

}  // namespace grpo::inline v0
