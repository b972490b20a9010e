// Which groups (or samples) carry a signal: DAPO's dynamic sampling and its relatives. They take the raw rewards, before
// any shaping (R1.45): an overlong penalty would make a group of equal outcomes look useful.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/entries.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// How a group is judged. An empty group is never kept.
struct group_filter {
    enum class kind { nonzero_std, std_above, mean_between };
    kind rule = kind::nonzero_std;
    double low = 0;
    double high = 0;
    int ddof = 0;

    // Dropped if it has several members and all rewards are equal; a lone sample stays (DAPO, arXiv 2503.14476, eq. 11;
    // verl's singleton).
    static group_filter nonzero_std() { return {}; }
    // Kept if it has several members and their standard deviation is above the threshold (slime: 1e-6, ddof 1).
    static group_filter std_above(double threshold = 1e-6, int ddof = 1) {
        return {kind::std_above, threshold, 0, ddof};
    }
    // Kept if low < mean < high, neither bound included (OpenRLHF: 0 and 1).
    static group_filter mean_between(double low = 0.0, double high = 1.0) { return {kind::mean_between, low, high, 0}; }

    problem validate(const char* function) const {
        if (rule == kind::std_above) {
            if (ddof == 0 || ddof == 1) return detail::below(function, "group_filter.threshold", low, 0.0);
            return detail::complain(function, "group_filter.ddof", "is %lld, but must be 0 or %lld",
                                    static_cast<long long>(ddof), 1LL);
        }
        if (low <= high) return {};
        return detail::complain(function, "group_filter", "has the lower bound %g above the upper bound %g", low, high);
    }
};

struct filter_result {
    std::int64_t considered = 0;  // groups, or valid samples
    std::int64_t kept = 0;

    GRPO_HD friend filter_result operator+(const filter_result& a, const filter_result& b) {
        return {a.considered + b.considered, a.kept + b.kept};
    }
};

namespace detail {

// Moments and extremes of rewards.
struct group_summary {
    template <class A>
    struct state {
        moments::state<A> of;
        extrema::state<A> range;
    };
    template <class A>
    GRPO_HD static void add(state<A>& s, const A& x) {
        moments::add(s.of, x);
        extrema::add(s.range, x);
    }
    template <class A>
    GRPO_HD static void merge(state<A>& a, const state<A>& b) {
        moments::merge(a.of, b.of);
        extrema::merge(a.range, b.range);
    }
};
// Of the valid ones of one group, without the member `skip`.
template <class Team, class Groups, class T>
GRPO_HD group_summary::state<double> summarise(Team& team, const Groups& groups, std::int64_t g, const T* reward,
                                               std::int64_t skip = -1) {
    return team.template fold<group_summary, double>(groups.begin(g), groups.end(g), [&](auto& state, cursor<double> at) {
        if (at.i != skip && groups.active(at)) group_summary::add(state, at.load(reward));
    });
}

// Sizes, and the first valid reward that is not finite (R1.6).
template <class Groups, class T>
problem validate_rewards(const char* function, const Groups& groups, view<const T> reward) {
    problem p = first_of(groups.validate(function),
                         wrong_size(function, "reward", reward.size(), groups.extent(), "samples"),
                         null_pointer(function, "reward", reward.data(), reward.size()));
    if (p) return p;
    for (std::int64_t g = 0; g < groups.rows(); ++g) {
        for (std::int64_t i = groups.begin(g); i < groups.end(g); ++i) {
            if (!groups.active(cursor<double>{i}) || !is_nonfinite(static_cast<double>(reward[i]))) continue;
            return complain(function, "reward", "[%lld] of %lld is not finite: mask it with groups.where(valid)",
                            static_cast<long long>(i), static_cast<long long>(reward.size()));
        }
    }
    return {};
}

// The same without a look at what lies in another memory.
template <class Exec, class Groups, class T>
problem validate_rewards(const Exec& exec, const char* function, const Groups& groups, view<const T> reward) {
    if constexpr (on_host<Exec>) {
        return validate_rewards(function, groups, reward);
    } else {
        if (const problem p = check_shape(exec, function, groups)) return p;
        return check_array(exec, function, "reward", reward, groups.extent(), "samples");
    }
}

GRPO_HD bool passes(const group_filter& f, const group_summary::state<double>& s) {
    switch (f.rule) {
        case group_filter::kind::std_above: return s.of.n > 1 && f.low * f.low < moments::variance(s.of, f.ddof);
        case group_filter::kind::mean_between: return s.of.n > 0 && f.low < s.of.mean && s.of.mean < f.high;
        default: return s.range.n == 1 || s.range.least < s.range.greatest;
    }
}

template <class Groups, class T, class M>
struct filtered_groups {
    Groups groups;
    const T* reward;
    group_filter filter;
    M* keep;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }

    template <class Team>
    GRPO_HD filter_result operator()(Team& team, std::int64_t g) const {
        const bool stays = passes(filter, summarise(team, groups, g, reward));
        if (team.leader()) keep[g] = static_cast<M>(stays ? 1 : 0);
        return {1, stays ? 1 : 0};
    }
};
template <class Groups, class T, class M>
struct filtered_samples {
    Groups groups;
    const T* reward;
    M* keep;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }

    template <class Team>
    GRPO_HD filter_result operator()(Team& team, std::int64_t g) const {
        const auto total = team.template fold<tally<2>, double>(
            groups.begin(g), groups.end(g), [&](auto& state, cursor<double> at) {
                const bool valid = groups.active(at);
                const serial_team alone;
                const auto others = summarise(alone, groups, g, reward, at.i);
                const bool stays = valid && others.of.n > 1 && others.range.least < others.range.greatest;
                keep[at.i] = static_cast<M>(stays ? 1 : 0);
                state.sum[0] += valid ? 1 : 0;
                state.sum[1] += stays ? 1 : 0;
            });
        return {static_cast<std::int64_t>(total.sum[0]), static_cast<std::int64_t>(total.sum[1])};
    }
};

template <class M, class T>
struct value_of_row {
    const T* per_row;

    GRPO_HD M operator()(std::int64_t row) const { return static_cast<M>(per_row[row]); }
};

}  // namespace detail

// keep[g] = 1 for the groups that pass, else 0; one entry per group. groups.where(valid) leaves rewards out. Executors of
// another memory look at no reward beforehand, and return where the counts will be.
template <class Executor, shape Groups, class Rewards, class Keep>
detail::total_of<Executor, filter_result> select_groups(const Executor& exec, const Groups& groups, const Rewards& raw_reward,
                                                        const group_filter& filter, Keep&& keep) {
    constexpr const char* function = "select_groups";
    const view all(raw_reward);
    using T = std::remove_cvref_t<decltype(all[0])>;
    const view<const T> reward(all.data(), all.size());
    const view out(keep);
    using M = std::remove_reference_t<decltype(out[0])>;
    detail::require(detail::validate_rewards(exec, function, groups, reward));
    detail::require(detail::first_of(filter.validate(function),
                                     detail::check_array(exec, function, "keep", out, groups.rows(), "groups")));
    return detail::fold_rows<filter_result>(exec, groups.rows(),
                                            detail::filtered_groups<Groups, T, M>{groups, reward.data(), filter, out.data()});
}
template <shape Groups, class Rewards, class Keep>
filter_result select_groups(const Groups& groups, const Rewards& raw_reward, const group_filter& filter, Keep&& keep) {
    return select_groups(serial{}, groups, raw_reward, filter, keep);
}

// keep[i] = 1 for the samples whose fellows differ among themselves, else 0; one entry per sample. With leave-one-out
// statistics this is NeMo RL's rule: a lone winner goes, its losers stay, and pairs go whole. O(size²) per group.
template <class Executor, shape Groups, class Rewards, class Keep>
detail::total_of<Executor, filter_result> select_samples(const Executor& exec, const Groups& groups, const Rewards& raw_reward,
                                                         Keep&& keep) {
    constexpr const char* function = "select_samples";
    const view all(raw_reward);
    using T = std::remove_cvref_t<decltype(all[0])>;
    const view<const T> reward(all.data(), all.size());
    const view out(keep);
    using M = std::remove_reference_t<decltype(out[0])>;
    detail::require(detail::validate_rewards(exec, function, groups, reward));
    detail::require(detail::check_array(exec, function, "keep", out, groups.extent(), "samples"));
    return detail::fold_rows<filter_result>(exec, groups.rows(),
                                            detail::filtered_samples<Groups, T, M>{groups, reward.data(), out.data()});
}
template <shape Groups, class Rewards, class Keep>
filter_result select_samples(const Groups& groups, const Rewards& raw_reward, Keep&& keep) {
    return select_samples(serial{}, groups, raw_reward, keep);
}

// out[i] = per_row[row of i] at active positions, 0 elsewhere: a choice of groups becomes one of sequences, and that one of
// tokens.
template <class Executor, shape Shape, class Rows, class Out>
void expand_rows(const Executor& exec, const Shape& layout, const Rows& per_row, Out&& out) {
    constexpr const char* function = "expand_rows";
    const view from(per_row);
    const view to(out);
    using T = std::remove_cvref_t<decltype(from[0])>;
    using M = std::remove_reference_t<decltype(to[0])>;
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::first_of(detail::check_array(exec, function, "per_row", from, layout.rows(), "rows"),
                                     detail::check_array(exec, function, "out", to, layout.extent(), "positions")));
    detail::expand(exec, layout, detail::value_of_row<M, T>{from.data()}, to.data());
}
template <shape Shape, class Rows, class Out>
void expand_rows(const Shape& layout, const Rows& per_row, Out&& out) {
    expand_rows(serial{}, layout, per_row, out);
}

}  // namespace grpo::inline v0
