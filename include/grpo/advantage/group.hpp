// Group-normalised advantages: A_i = (r_i - baseline) / divisor, one per sequence (arXiv 2402.03300, §4.1.2).
//
//   const auto groups = grpo::padded(prompts, 8);             // or grpo::ragged(group_offsets), see labels.hpp
//   grpo::group_normalised(groups, rewards, advantages);      // or groups.where(valid)
//   grpo::group_normalised(exec, groups, rewards, advantages, {.eps = 1e-4}, reports);
//
// Groups are a shape over sequences. A reward that cannot be scored is left out with groups.where(valid): it changes no
// statistic and its advantage is 0. A NaN or infinite reward that counts is an error that names its index (R1.6).
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/advantage/normalise.hpp>
#include <grpo/advantage/side_by_side.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

enum class group_baseline {
    mean,           // of the group
    leave_one_out,  // of the other members
};
enum class group_scale {
    group,           // the group's standard deviation
    batch,           // that of all rewards of the batch (arXiv 2508.08221)
    none,            // undivided: Dr.GRPO (arXiv 2503.20783)
    leave_one_out,   // of the other members: NeMo RL's default. Cost: the square of the group's size
    about_baseline,  // sqrt(Σ(r_i - b_i)² / (n - ddof)) about the baselines used: AReaL's leave-one-out
};
// A group with one member has no spread. One valid member among several invalid ones always gets 0.
enum class singleton_rule {
    zero,        // TRL, NeMo RL, tunix RLOO (default)
    raw_reward,  // baseline 0, deviation 1: verl
    error,       // refused
};

// Defaults: the published formula with the sample deviation and verl's eps. Conventions of the field: requirement R1.3.
struct group_options {
    int ddof = 1;
    double eps = 1e-6;
    eps_placement placement = eps_placement::outside;
    group_baseline baseline = group_baseline::mean;
    group_scale scale = group_scale::group;
    singleton_rule singleton = singleton_rule::zero;

    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "ddof", ddof, 0), detail::below(function, "eps", eps, 0));
    }
};

// What a group looked like. `degenerate`: all valid rewards equal (or none), so every advantage is exactly 0 and the
// group may be left out of denominators and KL terms by the caller (R1.5, R1.11).
struct group_report {
    std::int64_t size = 0;  // valid members
    double mean = 0;
    double std = 0;  // with the options' ddof; 0 where its divisor is not positive
    bool degenerate = true;
};

namespace detail {

// Count, extremes, mean and centred second moment of the valid rewards of rows [first, last), without member `skip`.
struct spread {
    std::int64_t n;
    double least;
    double greatest;
    double mean;
    double m2;

    GRPO_HD bool flat() const { return !(least < greatest); }
};

// Which members count: the valid ones, or all of those but one.
template <class Groups>
struct members {
    static constexpr bool all = !requires(const Groups& g) { g.mask; };
    const Groups& groups;

    GRPO_HD bool operator()(std::int64_t i) const { return groups.active(cursor<double>{i}); }
};
template <class Groups>
struct members_but {
    static constexpr bool all = false;
    const Groups& groups;
    std::int64_t skip;

    GRPO_HD bool operator()(std::int64_t i) const { return groups.active(cursor<double>{i}) && i != skip; }
};

constexpr double past_all = 1e308;

// Σ f(i) over a range in four running sums. The f here leave nothing to round, so any order gives the same bits, and
// additions need not wait for each other.
template <class F>
GRPO_HD double exact_sum(std::int64_t begin, std::int64_t end, const F& f) {
    double sum[4] = {};
    std::int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
        double x[4];
        for (int k = 0; k < 4; ++k) x[k] = f(i + k);
        for (int k = 0; k < 4; ++k) sum[k] += x[k];
    }
    for (; i < end; ++i) sum[0] += f(i);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// The extremes of a range without a mask, four lanes side by side. 16-bit storage has no comparison of its own.
template <class T>
GRPO_HD void extremes(const T* r, std::int64_t begin, std::int64_t end, double& least, double& greatest) {
    using C = std::conditional_t<std::is_arithmetic_v<T>, T, float>;
    if (begin == end) return;
    const C one = static_cast<C>(r[begin]);
    C low[4] = {one, one, one, one};
    C high[4] = {one, one, one, one};
    std::int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
        C x[4];
        for (int k = 0; k < 4; ++k) x[k] = static_cast<C>(r[i + k]);
        for (int k = 0; k < 4; ++k) low[k] = x[k] < low[k] ? x[k] : low[k];
        for (int k = 0; k < 4; ++k) high[k] = high[k] < x[k] ? x[k] : high[k];
    }
    for (; i < end; ++i) {
        const C x = static_cast<C>(r[i]);
        low[0] = x < low[0] ? x : low[0];
        high[0] = high[0] < x ? x : high[0];
    }
    for (int k = 0; k < 4; ++k) {
        least = static_cast<double>(low[k]) < least ? static_cast<double>(low[k]) : least;
        greatest = static_cast<double>(high[k]) > greatest ? static_cast<double>(high[k]) : greatest;
    }
}

// Count and extremes of the rewards of rows [first, last) that count.
template <class Members, class T>
GRPO_HD void find_extent(spread& s, const Members& in, const T* r, std::int64_t first, std::int64_t last) {
    std::int64_t n = 0;
    double least = past_all;
    double greatest = -past_all;
    for (std::int64_t row = first; row < last; ++row) {
        const std::int64_t begin = in.groups.begin(row);
        const std::int64_t end = in.groups.end(row);
        if constexpr (Members::all) {
            n += end - begin;
            extremes(r, begin, end, least, greatest);
        } else {
            for (std::int64_t i = begin; i < end; ++i) {
                if (!in(i)) continue;
                const double x = static_cast<double>(r[i]);
                least = x < least ? x : least;
                greatest = greatest < x ? x : greatest;
                ++n;
            }
        }
    }
    s.n = n;
    s.least = n == 0 ? 0.0 : least;
    s.greatest = n == 0 ? 0.0 : greatest;
}

// Then the mean, shifted by the least reward.
template <class Members, class T>
GRPO_HD void find_mean(spread& s, const Members& in, const T* r, std::int64_t first, std::int64_t last) {
    const double n = static_cast<double>(s.n == 0 ? 1 : s.n);
    const double least = s.least;
    const double grid = grid_for(s.greatest - least, n);
    double sum = 0;
    for (std::int64_t row = first; row < last; ++row) {
        sum += exact_sum(in.groups.begin(row), in.groups.end(row), [&](std::int64_t i) {
            const double d = in(i) ? static_cast<double>(r[i]) - least : 0.0;
            return (d + grid) - grid;
        });
    }
    s.mean = least + sum / n;
}

// Then the squares about it.
template <class Members, class T>
GRPO_HD void find_m2(spread& s, const Members& in, const T* r, std::int64_t first, std::int64_t last) {
    const double range = s.greatest - s.least;
    const double mean = s.mean;
    const double grid = grid_for(range * range, static_cast<double>(s.n));
    double m2 = 0;
    for (std::int64_t row = first; row < last; ++row) {
        m2 += exact_sum(in.groups.begin(row), in.groups.end(row), [&](std::int64_t i) {
            const double d = in(i) ? static_cast<double>(r[i]) - mean : 0.0;
            return (d * d + grid) - grid;
        });
    }
    s.m2 = m2;
}

// Two passes in double; the sums are the same bits in every order of the members.
template <class Members, class T>
GRPO_HD spread measure(const Members& in, const T* r, std::int64_t first, std::int64_t last) {
    spread s;
    find_extent(s, in, r, first, last);
    find_mean(s, in, r, first, last);
    find_m2(s, in, r, first, last);
    return s;
}

// Some groups at a time, step by step, so that the processor works on all of them at once instead of waiting for the
// divisions of one.
template <class Groups, class T, class Out>
struct group_rows {
    static constexpr int block = 8;
    Groups groups;
    const T* reward;
    Out* advantage;
    group_options options;
    double batch_variance;
    group_report* report;

    GRPO_HD std::int64_t blocks() const { return (groups.rows() + block - 1) / block; }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t at) const {
        if (!team.leader()) return;
        const members<Groups> in{groups};
        const std::int64_t first = at * block;
        const int count = static_cast<int>(groups.rows() - first < block ? groups.rows() - first : block);
        if (count == block && together(first)) return;
        spread s[block];
        double factors[block];
        for (int k = 0; k < count; ++k) find_extent(s[k], in, reward, first + k, first + k + 1);
        for (int k = 0; k < count; ++k) find_mean(s[k], in, reward, first + k, first + k + 1);
        for (int k = 0; k < count; ++k) find_m2(s[k], in, reward, first + k, first + k + 1);
        for (int k = 0; k < count; ++k) factors[k] = factor_of(s[k]);
        if (options.scale == group_scale::leave_one_out) {
            for (int k = 0; k < count; ++k) write_left_out(in, s[k], first + k);
        } else {
            for (int k = 0; k < count; ++k) write(in, s[k].mean, factors[k], first + k);
        }
        for (int k = 0; k < count; ++k) finish(in, s[k], first + k);
    }

private:
    // A whole block of groups of equal size without a mask and without a report; false, with nothing done, for any other.
    GRPO_HD bool together(std::int64_t first) const {
        if constexpr (std::same_as<Groups, padded>) {
            const std::int64_t n = groups.width;
            if (n < 2 || n > eight_groups::largest || report != nullptr) return false;
            if (options.scale == group_scale::leave_one_out) return false;
            eight_groups all;
            all.load(reward + groups.begin(first), n, groups.stride);
            all.measure(n);
            double factors[block];
            for (int k = 0; k < block; ++k) factors[k] = factor_of({n, 0.0, 0.0, 0.0, all.m2[k]});
            all.write(advantage + groups.begin(first), n, groups.stride, factors);
            return true;
        } else {
            return false;
        }
    }
    GRPO_HD double factor(double variance) const {
        if (options.scale == group_scale::none) return 1.0;
        return normalising_factor(variance, options.eps, options.placement);
    }
    // r - mean of the others is (r - mean)·n / (n - 1).
    GRPO_HD double stretch(const spread& s) const {
        if (options.baseline == group_baseline::mean || s.n < 2) return 1.0;
        return static_cast<double>(s.n) / static_cast<double>(s.n - 1);
    }
    GRPO_HD double factor_of(const spread& s) const {
        const double longer = stretch(s);
        double variance = variance_of(s.m2, static_cast<double>(s.n), options.ddof);
        if (options.scale == group_scale::batch) variance = batch_variance;
        if (options.scale == group_scale::about_baseline) variance *= longer * longer;
        return factor(variance) * longer;
    }
    GRPO_HD void write(const members<Groups>& in, double mean, double scale, std::int64_t row) const {
        const std::int64_t end = groups.end(row);
        for (std::int64_t i = groups.begin(row); i < end; ++i) {
            const double a = (static_cast<double>(reward[i]) - mean) * scale;
            advantage[i] = static_cast<Out>(in(i) ? a : 0.0);
        }
    }
    GRPO_HD void write_left_out(const members<Groups>& in, const spread& s, std::int64_t row) const {
        const double longer = stretch(s);
        for (std::int64_t i = groups.begin(row); i < groups.end(row); ++i) {
            advantage[i] = Out(0);
            if (!in(i)) continue;
            const spread others = measure(members_but<Groups>{groups, i}, reward, row, row + 1);
            const double variance = variance_of(others.m2, static_cast<double>(others.n), options.ddof);
            advantage[i] = static_cast<Out>((static_cast<double>(reward[i]) - s.mean) * longer * factor(variance));
        }
    }
    // The lone member that keeps its reward (its mean is that reward), and the report.
    GRPO_HD void finish(const members<Groups>& in, const spread& s, std::int64_t row) const {
        const std::int64_t begin = groups.begin(row);
        if (options.singleton == singleton_rule::raw_reward && groups.end(row) - begin == 1 && in(begin)) {
            advantage[begin] = static_cast<Out>(s.mean * factor(1.0));
        }
        if (report == nullptr) return;
        report[row].size = s.n;
        report[row].mean = s.mean;
        report[row].std = ::sqrt(variance_of(s.m2, static_cast<double>(s.n), options.ddof));
        report[row].degenerate = s.flat();
    }
};

// Whether a group of one member that counts is there, if that is to be refused.
template <class Groups>
problem lone_member(const char* function, const Groups& groups, singleton_rule rule) {
    for (std::int64_t row = 0; rule == singleton_rule::error && row < groups.rows(); ++row) {
        if (groups.end(row) - groups.begin(row) != 1 || groups.count_active(row) != 1) continue;
        return complain(function, "groups", "has one member in group %lld, but singleton_rule::error wants at least %d",
                        static_cast<long long>(row), 2);
    }
    return {};
}

// Whether nothing is wrong, told without building a sentence: the common case should cost nothing.
template <class Reward, class Advantage>
bool plainly_right(const padded& groups, const Reward& reward, const Advantage& advantage, singleton_rule rule) {
    if (groups.n < 0 || groups.width < 0 || groups.stride != groups.width) return false;
    const std::int64_t size = groups.extent();
    if (reward.size() != size || advantage.size() != size || rule == singleton_rule::error) return false;
    if (size == 0) return true;
    return reward.data() != nullptr && advantage.data() != nullptr && all_finite(reward.data(), size);
}
template <class Groups, class Reward, class Advantage>
bool plainly_right(const Groups&, const Reward&, const Advantage&, singleton_rule) {
    return false;
}

template <class Groups, class Reward, class Advantage>
problem check_groups(const char* function, const Groups& groups, const Reward& reward, const Advantage& advantage,
                     singleton_rule rule) {
    if (const problem p = groups.validate(function)) return p;
    if (const problem p = wants(function, "reward", reward, groups.extent(), "sequences")) return p;
    if (const problem p = wants(function, "advantage", advantage, groups.extent(), "sequences")) return p;
    if (const problem p = lone_member(function, groups, rule)) return p;
    return not_finite(function, "reward", groups, reward.data());
}

}  // namespace detail

// Writes one advantage per sequence, and a report per group if `report` is given. advantage may be the reward's own
// memory, except with group_scale::leave_one_out.
template <class Executor, shape Groups, class Reward, class Advantage>
void group_normalised(const Executor& exec, const Groups& groups, const Reward& reward, Advantage&& advantage,
                      const group_options& options = {}, view<group_report> report = {}) {
    constexpr const char* function = "group_normalised";
    const view r(reward);
    const view a(advantage);
    if (!(options.ddof >= 0 && options.eps >= 0)) detail::require(options.validate(function));
    if (report.data() != nullptr) detail::require(detail::wants(function, "report", report, groups.rows(), "groups"));
    if (!detail::plainly_right(groups, r, a, options.singleton)) {
        detail::require(detail::check_groups(function, groups, r, a, options.singleton));
    }
    double batch_variance = 0.0;
    if (options.scale == group_scale::batch) {
        const detail::spread s = detail::measure(detail::members<Groups>{groups}, r.data(), 0, groups.rows());
        batch_variance = detail::variance_of(s.m2, static_cast<double>(s.n), options.ddof);
    }
    using T = detail::plain<decltype(r[0])>;
    using Out = detail::plain<decltype(a[0])>;
    const detail::group_rows<Groups, T, Out> rows{groups, r.data(), a.data(), options, batch_variance, report.data()};
    exec.teams(rows.blocks(), rows);
}

template <shape Groups, class Reward, class Advantage>
void group_normalised(const Groups& groups, const Reward& reward, Advantage&& advantage,
                      const group_options& options = {}, view<group_report> report = {}) {
    group_normalised(serial{}, groups, reward, advantage, options, report);
}

}  // namespace grpo::inline v0
