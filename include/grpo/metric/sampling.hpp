// Evaluation over groups of samples per problem: pass@k, maj@k, best- and worst-of-n, mean@n. All are exact expectations
// over the draws; nothing is bootstrapped. Rewards of samples left out by groups.where(valid) are not read.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/selection/groups.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// The mean over groups, as a sum and a count that add up over parts.
struct metric_mean {
    double sum = 0;
    std::int64_t groups = 0;
    std::int64_t skipped = 0;  // groups with too few valid samples: not in the sum, their value is written as 0

    double mean() const { return groups > 0 ? sum / static_cast<double>(groups) : 0.0; }

    friend metric_mean operator+(const metric_mean& a, const metric_mean& b) {
        return {a.sum + b.sum, a.groups + b.groups, a.skipped + b.skipped};
    }
};

// The chance that k of n samples, drawn without replacement, contain one of the c correct ones: 1 - C(n-c, k) / C(n, k)
// (arXiv 2107.03374, eq. 1), as a product, so that n may be large.
inline double pass_at_k(std::int64_t n, std::int64_t c, std::int64_t k) {
    constexpr const char* function = "pass_at_k";
    detail::require(detail::first_of(detail::below(function, "k", static_cast<double>(k), 1),
                                     detail::below(function, "n", static_cast<double>(n), static_cast<double>(k)),
                                     detail::below(function, "c", static_cast<double>(c), 0),
                                     detail::below(function, "n - c", static_cast<double>(n - c), 0)));
    if (n - c < k) return 1.0;
    double none = 1.0;
    for (std::int64_t j = n - c + 1; j <= n; ++j) none *= 1.0 - static_cast<double>(k) / static_cast<double>(j);
    return 1.0 - none;
}

// The two ends of a group's rewards, and how n of them are drawn.
enum class draw { without_replacement, with_replacement };

namespace detail {

template <class Groups, class X, class Out>
problem validate_metric(const char* function, const Groups& groups, view<const X> x, view<Out> out, std::int64_t k) {
    return first_of(validate_rewards(function, groups, x), wrong_size(function, "out", out.size(), groups.rows(), "groups"),
                    null_pointer(function, "out", out.data(), out.size()),
                    below(function, "the number drawn", static_cast<double>(k), 1));
}

// value(g, valid samples) for every group with at least `least` of them.
template <class Groups, class Out, class F>
metric_mean over_groups(const Groups& groups, std::int64_t least, view<Out> out, F&& value) {
    metric_mean r;
    for (std::int64_t g = 0; g < groups.rows(); ++g) {
        const std::int64_t n = groups.count_active(g);
        const bool enough = n >= least;
        const double x = enough ? value(g, n) : 0.0;
        out[g] = static_cast<Out>(x);
        r.sum += x;
        r.groups += enough ? 1 : 0;
        r.skipped += enough ? 0 : 1;
    }
    return r;
}

template <class Container>
auto const_view(const Container& values) {
    const view all(values);
    return view<const std::remove_cvref_t<decltype(all[0])>>(all.data(), all.size());
}

// The chance that the largest of k draws from n has rank i (1 the least).
inline double chance_of_rank(std::int64_t i, std::int64_t n, std::int64_t k, draw how) {
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

// Σ_i reward_i · chance that i is the extreme; rank by value, of equal ones by place.
template <class Groups, class T>
double expected_extreme(const Groups& groups, std::int64_t g, view<const T> reward, std::int64_t n, std::int64_t k,
                        draw how, bool best) {
    double sum = 0;
    for (std::int64_t i = groups.begin(g); i < groups.end(g); ++i) {
        if (!groups.active(cursor<double>{i})) continue;
        const double own = static_cast<double>(reward[i]);
        std::int64_t rank = 1;
        for (std::int64_t j = groups.begin(g); j < groups.end(g); ++j) {
            if (!groups.active(cursor<double>{j})) continue;
            const double other = static_cast<double>(reward[j]);
            const bool under = best ? other < own : own < other;
            const bool over = best ? own < other : other < own;
            rank += under || (!over && j < i) ? 1 : 0;
        }
        sum += own * chance_of_rank(rank, n, k, how);
    }
    return sum;
}

template <class Groups, class Rewards, class Out>
metric_mean extreme_of_n(const char* function, const Groups& groups, const Rewards& reward, std::int64_t n, draw how,
                         Out&& out, bool best) {
    const auto x = const_view(reward);
    const view to(out);
    require(validate_metric(function, groups, x, to, n));
    return over_groups(groups, how == draw::without_replacement ? n : 1, to, [&](std::int64_t g, std::int64_t size) {
        return expected_extreme(groups, g, x, size, n, how, best);
    });
}

}  // namespace detail

// out[g] = pass@k of group g; a sample is correct where `correct` is not 0.
template <shape Groups, class Correct, class Out>
metric_mean pass_at_k(const Groups& groups, const Correct& correct, std::int64_t k, Out&& out) {
    const auto x = detail::const_view(correct);
    const view to(out);
    detail::require(detail::validate_metric("pass_at_k", groups, x, to, k));
    return detail::over_groups(groups, k, to, [&](std::int64_t g, std::int64_t n) {
        std::int64_t c = 0;
        for (std::int64_t i = groups.begin(g); i < groups.end(g); ++i) {
            c += groups.active(cursor<double>{i}) && static_cast<double>(x[i]) != 0 ? 1 : 0;
        }
        return pass_at_k(n, c, k);
    });
}

// out[g] = mean reward of group g.
template <shape Groups, class Rewards, class Out>
metric_mean mean_at_n(const Groups& groups, const Rewards& reward, Out&& out) {
    const auto x = detail::const_view(reward);
    const view to(out);
    detail::require(detail::validate_metric("mean_at_n", groups, x, to, 1));
    return detail::over_groups(groups, 1, to, [&](std::int64_t g, std::int64_t) {
        return detail::summarise(groups, g, x).of.mean;
    });
}

// out[g] = expected largest (smallest) of n rewards drawn from group g. O(size²) per group.
template <shape Groups, class Rewards, class Out>
metric_mean best_of_n(const Groups& groups, const Rewards& reward, std::int64_t n, draw how, Out&& out) {
    return detail::extreme_of_n("best_of_n", groups, reward, n, how, out, true);
}
template <shape Groups, class Rewards, class Out>
metric_mean worst_of_n(const Groups& groups, const Rewards& reward, std::int64_t n, draw how, Out&& out) {
    return detail::extreme_of_n("worst_of_n", groups, reward, n, how, out, false);
}

}  // namespace grpo::inline v0
