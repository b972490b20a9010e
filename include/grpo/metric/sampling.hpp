// Evaluation over groups of samples per problem: pass@k, maj@k, best- and worst-of-n, mean@n. All are exact expectations
// over the draws; nothing is bootstrapped. Rewards of samples left out by groups.where(valid) are not read. Each function has
// an executor as an optional first argument; those of another memory return where the mean will be.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/selection/groups.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// The mean over groups, as a sum and a count that add up over parts.
struct metric_mean {
    double sum = 0;
    std::int64_t groups = 0;
    std::int64_t skipped = 0;  // groups with too few valid samples: not in the sum, their value is written as 0

    GRPO_HD double mean() const { return groups > 0 ? sum / static_cast<double>(groups) : 0.0; }

    GRPO_HD friend metric_mean operator+(const metric_mean& a, const metric_mean& b) {
        return {a.sum + b.sum, a.groups + b.groups, a.skipped + b.skipped};
    }
};

namespace detail {

// 1 - C(n-c, k) / C(n, k) as a product.
GRPO_HD double chance_of_one(std::int64_t n, std::int64_t c, std::int64_t k) {
    if (n - c < k) return 1.0;
    double none = 1.0;
    for (std::int64_t j = n - c + 1; j <= n; ++j) none *= 1.0 - static_cast<double>(k) / static_cast<double>(j);
    return 1.0 - none;
}

}  // namespace detail

// The chance that k of n samples, drawn without replacement, contain one of the c correct ones: 1 - C(n-c, k) / C(n, k)
// (arXiv 2107.03374, eq. 1), as a product, so that n may be large.
inline double pass_at_k(std::int64_t n, std::int64_t c, std::int64_t k) {
    constexpr const char* function = "pass_at_k";
    detail::require(detail::first_of(detail::below(function, "k", static_cast<double>(k), 1),
                                     detail::below(function, "n", static_cast<double>(n), static_cast<double>(k)),
                                     detail::below(function, "c", static_cast<double>(c), 0),
                                     detail::below(function, "n - c", static_cast<double>(n - c), 0)));
    return detail::chance_of_one(n, c, k);
}

// The two ends of a group's rewards, and how n of them are drawn.
enum class draw { without_replacement, with_replacement };

namespace detail {

template <class Exec, class Groups, class X, class Out>
problem validate_metric(const Exec& exec, const char* function, const Groups& groups, view<const X> x, view<Out> out,
                        std::int64_t k) {
    if (const problem p = validate_rewards(exec, function, groups, x)) return p;
    return first_of(check_array(exec, function, "out", out, groups.rows(), "groups"),
                    below(function, "the number drawn", static_cast<double>(k), 1));
}

// value(team, g, valid samples) of every group with at least `least` of them.
template <class Groups, class Out, class Value>
struct metric_rows {
    Groups groups;
    std::int64_t least;
    Out* out;
    Value value;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }

    template <class Team>
    GRPO_HD metric_mean operator()(Team& team, std::int64_t g) const {
        const std::int64_t n = count_active(team, groups, g);
        const bool enough = n >= least;
        const double x = enough ? value(team, g, n) : 0.0;
        if (team.leader()) out[g] = static_cast<Out>(x);
        return {x, enough ? 1 : 0, enough ? 0 : 1};
    }
};
template <class Exec, class Groups, class Out, class Value>
auto over_groups(const Exec& exec, const Groups& groups, std::int64_t least, view<Out> out, const Value& value) {
    return fold_rows<metric_mean>(exec, groups.rows(), metric_rows<Groups, Out, Value>{groups, least, out.data(), value});
}

template <class Container>
auto const_view(const Container& values) {
    const view all(values);
    return view<const std::remove_cvref_t<decltype(all[0])>>(all.data(), all.size());
}

// The chance that the largest of k draws from n has rank i (1 the least).
GRPO_HD double chance_of_rank(std::int64_t i, std::int64_t n, std::int64_t k, draw how) {
    const double size = static_cast<double>(n);
    double p = 1.0;
    if (how == draw::without_replacement) {
        p = static_cast<double>(k) / size;
        for (std::int64_t j = 1; j < k; ++j) p *= static_cast<double>(i - j) / static_cast<double>(n - j);
        return i < k ? 0.0 : p;
    }
    double before = 1.0;
    for (std::int64_t j = 0; j < k; ++j) {
        p *= static_cast<double>(i) / size;
        before *= static_cast<double>(i - 1) / size;
    }
    return p - before;
}

template <class Groups, class X>
struct share_solved {
    Groups groups;
    const X* correct;
    std::int64_t k;

    template <class Team>
    GRPO_HD double operator()(Team& team, std::int64_t g, std::int64_t n) const {
        const auto right = team.template fold<tally<1>, double>(groups.begin(g), groups.end(g), [&](auto& state, cursor<double> at) {
            state.sum[0] += groups.active(at) && at.load(correct) != 0 ? 1 : 0;
        });
        return chance_of_one(n, static_cast<std::int64_t>(right.sum[0]), k);
    }
};
template <class Groups, class T>
struct mean_reward {
    Groups groups;
    const T* reward;

    template <class Team>
    GRPO_HD double operator()(Team& team, std::int64_t g, std::int64_t) const {
        return summarise(team, groups, g, reward).of.mean;
    }
};
// Σ_i reward_i · chance that i is the extreme; rank by value, of equal ones by place.
template <class Groups, class T>
struct expected_extreme {
    Groups groups;
    const T* reward;
    std::int64_t k;
    draw how;
    bool best;

    template <class Team>
    GRPO_HD double operator()(Team& team, std::int64_t g, std::int64_t n) const {
        const auto total = team.template fold<tally<1>, double>(groups.begin(g), groups.end(g), [&](auto& state, cursor<double> at) {
            if (groups.active(at)) state.sum[0] += at.load(reward) * chance_of_rank(rank(g, at.i), n, k, how);
        });
        return total.sum[0];
    }
    GRPO_HD std::int64_t rank(std::int64_t g, std::int64_t i) const {
        const double own = static_cast<double>(reward[i]);
        std::int64_t r = 1;
        for (std::int64_t j = groups.begin(g); j < groups.end(g); ++j) {
            if (!groups.active(cursor<double>{j})) continue;
            const double other = static_cast<double>(reward[j]);
            const bool under = best ? other < own : own < other;
            const bool over = best ? own < other : other < own;
            r += under || (!over && j < i) ? 1 : 0;
        }
        return r;
    }
};

template <class Exec, class Groups, class Rewards, class Out>
auto extreme_of_n(const Exec& exec, const char* function, const Groups& groups, const Rewards& reward, std::int64_t n, draw how,
                  Out&& out, bool best) {
    const auto x = const_view(reward);
    const view to(out);
    using T = std::remove_cvref_t<decltype(x[0])>;
    require(validate_metric(exec, function, groups, x, to, n));
    return over_groups(exec, groups, how == draw::without_replacement ? n : 1, to,
                       expected_extreme<Groups, T>{groups, x.data(), n, how, best});
}

}  // namespace detail

// out[g] = pass@k of group g; a sample is correct where `correct` is not 0.
template <class Executor, shape Groups, class Correct, class Out>
detail::total_of<Executor, metric_mean> pass_at_k(const Executor& exec, const Groups& groups, const Correct& correct,
                                                  std::int64_t k, Out&& out) {
    const auto x = detail::const_view(correct);
    const view to(out);
    using X = std::remove_cvref_t<decltype(x[0])>;
    detail::require(detail::validate_metric(exec, "pass_at_k", groups, x, to, k));
    return detail::over_groups(exec, groups, k, to, detail::share_solved<Groups, X>{groups, x.data(), k});
}
template <shape Groups, class Correct, class Out>
metric_mean pass_at_k(const Groups& groups, const Correct& correct, std::int64_t k, Out&& out) {
    return pass_at_k(serial{}, groups, correct, k, out);
}

// out[g] = mean reward of group g.
template <class Executor, shape Groups, class Rewards, class Out>
detail::total_of<Executor, metric_mean> mean_at_n(const Executor& exec, const Groups& groups, const Rewards& reward, Out&& out) {
    const auto x = detail::const_view(reward);
    const view to(out);
    using T = std::remove_cvref_t<decltype(x[0])>;
    detail::require(detail::validate_metric(exec, "mean_at_n", groups, x, to, 1));
    return detail::over_groups(exec, groups, 1, to, detail::mean_reward<Groups, T>{groups, x.data()});
}
template <shape Groups, class Rewards, class Out>
metric_mean mean_at_n(const Groups& groups, const Rewards& reward, Out&& out) {
    return mean_at_n(serial{}, groups, reward, out);
}

// out[g] = expected largest (smallest) of n rewards drawn from group g. O(size²) per group.
template <class Executor, shape Groups, class Rewards, class Out>
detail::total_of<Executor, metric_mean> best_of_n(const Executor& exec, const Groups& groups, const Rewards& reward,
                                                  std::int64_t n, draw how, Out&& out) {
    return detail::extreme_of_n(exec, "best_of_n", groups, reward, n, how, out, true);
}
template <class Executor, shape Groups, class Rewards, class Out>
detail::total_of<Executor, metric_mean> worst_of_n(const Executor& exec, const Groups& groups, const Rewards& reward,
                                                   std::int64_t n, draw how, Out&& out) {
    return detail::extreme_of_n(exec, "worst_of_n", groups, reward, n, how, out, false);
}
template <shape Groups, class Rewards, class Out>
metric_mean best_of_n(const Groups& groups, const Rewards& reward, std::int64_t n, draw how, Out&& out) {
    return best_of_n(serial{}, groups, reward, n, how, out);
}
template <shape Groups, class Rewards, class Out>
metric_mean worst_of_n(const Groups& groups, const Rewards& reward, std::int64_t n, draw how, Out&& out) {
    return worst_of_n(serial{}, groups, reward, n, how, out);
}

}  // namespace grpo::inline v0
