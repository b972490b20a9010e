// Which groups (or samples) carry a signal: DAPO's dynamic sampling and its relatives. They take the raw rewards, before
// any shaping (R1.45): an overlong penalty would make a group of equal outcomes look useful.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
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

    friend filter_result operator+(const filter_result& a, const filter_result& b) {
        return {a.considered + b.considered, a.kept + b.kept};
    }
};

namespace detail {

// Moments and extremes of the valid rewards of one group, without the member `skip`.
struct group_summary {
    moments::state<double> of;
    extrema::state<double> range;
};
template <class Groups, class T>
group_summary summarise(const Groups& groups, std::int64_t g, view<const T> reward, std::int64_t skip = -1) {
    group_summary s;
    for (std::int64_t i = groups.begin(g); i < groups.end(g); ++i) {
        if (i == skip || !groups.active(cursor<double>{i})) continue;
        moments::add(s.of, static_cast<double>(reward[i]));
        extrema::add(s.range, static_cast<double>(reward[i]));
    }
    return s;
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

inline bool passes(const group_filter& f, const group_summary& s) {
    switch (f.rule) {
        case group_filter::kind::std_above: return s.of.n > 1 && f.low * f.low < moments::variance(s.of, f.ddof);
        case group_filter::kind::mean_between: return s.of.n > 0 && f.low < s.of.mean && s.of.mean < f.high;
        default: return s.of.n == 1 || s.range.least < s.range.greatest;
    }
}

}  // namespace detail

// keep[g] = 1 for the groups that pass, else 0; one entry per group. groups.where(valid) leaves rewards out.
template <shape Groups, class Rewards, class Keep>
filter_result select_groups(const Groups& groups, const Rewards& raw_reward, const group_filter& filter, Keep&& keep) {
    constexpr const char* function = "select_groups";
    const view all(raw_reward);
    const view<const std::remove_cvref_t<decltype(all[0])>> reward(all.data(), all.size());
    const view out(keep);
    detail::require(detail::first_of(detail::validate_rewards(function, groups, reward), filter.validate(function),
                                     detail::wrong_size(function, "keep", out.size(), groups.rows(), "groups"),
                                     detail::null_pointer(function, "keep", out.data(), out.size())));
    using M = std::remove_reference_t<decltype(out[0])>;
    filter_result r{groups.rows(), 0};
    for (std::int64_t g = 0; g < groups.rows(); ++g) {
        const bool stays = detail::passes(filter, detail::summarise(groups, g, reward));
        out[g] = static_cast<M>(stays ? 1 : 0);
        r.kept += stays ? 1 : 0;
    }
    return r;
}

// keep[i] = 1 for the samples whose fellows differ among themselves, else 0; one entry per sample. With leave-one-out
// statistics this is NeMo RL's rule: a lone winner goes, its losers stay, and pairs go whole. O(size²) per group.
template <shape Groups, class Rewards, class Keep>
filter_result select_samples(const Groups& groups, const Rewards& raw_reward, Keep&& keep) {
    constexpr const char* function = "select_samples";
    const view all(raw_reward);
    const view<const std::remove_cvref_t<decltype(all[0])>> reward(all.data(), all.size());
    const view out(keep);
    detail::require(detail::first_of(detail::validate_rewards(function, groups, reward),
                                     detail::wrong_size(function, "keep", out.size(), groups.extent(), "samples"),
                                     detail::null_pointer(function, "keep", out.data(), out.size())));
    using M = std::remove_reference_t<decltype(out[0])>;
    filter_result r;
    for (std::int64_t g = 0; g < groups.rows(); ++g) {
        for (std::int64_t i = groups.begin(g); i < groups.end(g); ++i) {
            const bool valid = groups.active(cursor<double>{i});
            const auto others = detail::summarise(groups, g, reward, i);
            const bool stays = valid && others.of.n > 1 && others.range.least < others.range.greatest;
            out[i] = static_cast<M>(stays ? 1 : 0);
            r.considered += valid ? 1 : 0;
            r.kept += stays ? 1 : 0;
        }
    }
    return r;
}

// out[i] = per_row[row of i] at active positions, 0 elsewhere: a choice of groups becomes one of sequences, and that one of
// tokens.
template <shape Shape, class Rows, class Out>
void expand_rows(const Shape& layout, const Rows& per_row, Out&& out) {
    constexpr const char* function = "expand_rows";
    const view from(per_row);
    const view to(out);
    detail::require(detail::first_of(layout.validate(function),
                                     detail::wrong_size(function, "per_row", from.size(), layout.rows(), "rows"),
                                     detail::null_pointer(function, "per_row", from.data(), from.size()),
                                     detail::wrong_size(function, "out", to.size(), layout.extent(), "positions"),
                                     detail::null_pointer(function, "out", to.data(), to.size())));
    using M = std::remove_reference_t<decltype(to[0])>;
    for (std::int64_t row = 0; row < layout.rows(); ++row) {
        for (std::int64_t i = layout.begin(row); i < layout.end(row); ++i) {
            to[i] = layout.active(cursor<double>{i}) ? static_cast<M>(from[row]) : M(0);
        }
    }
}

}  // namespace grpo::inline v0
