// Group-normalised advantages: A_i = (r_i - baseline) / divisor, one per sequence (arXiv 2402.03300, §4.1.2).
//
//   const auto groups = grpo::padded(prompts, 8);             // or grpo::ragged(group_offsets), see labels.hpp
//   grpo::group_normalised(groups, rewards, advantages);      // or groups.where(valid)
//   grpo::group_normalised(exec, groups, rewards, advantages, {.eps = 1e-4}, reports);
//
// Groups are a shape over sequences. A reward that cannot be scored is left out with groups.where(valid): it changes no
// statistic and its advantage is 0. A NaN or infinite reward that counts is an error that names its index (R1.6).
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/advantage/moments.hpp>
#include <grpo/advantage/normalise.hpp>
#include <grpo/advantage/side_by_side.hpp>
#include <grpo/advantage/spread.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
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

// A group, walked by a team. LeftOut: whether each member is divided by the deviation of the others.
template <class Groups, class T, class Out, bool LeftOut>
struct group_rows {
    Groups groups;
    const T* reward;
    Out* advantage;
    group_options options;
    double batch_variance;
    const moments::state<double>* batch;  // what it will be computed from, if it is not known yet
    group_report* report;

    GRPO_HD std::int64_t entries() const { return groups.extent(); }
    static constexpr int blocks_per_multiprocessor = LeftOut ? 2 : 3;  // of a device, at least: the first needs more registers
    static constexpr int entries_per_lane = LeftOut ? 4 : 8;  // what is computed once a group costs more than its rewards

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const members<Groups> in{groups};
        const row_in_lanes<LeftOut ? 1 : entries_per_lane, Team, members<Groups>, T> members_of(team, in, reward, row);
        const std::int64_t size = groups.end(row) - groups.begin(row);
        const spread s = measure_together(members_of, members<Groups>::all ? size : count_active(team, groups, row));
        const bool kept = keeps_reward(in, row);
        const double scale = factor_of(s, kept);
        const double baseline = kept ? 0.0 : s.mean;
        members_of.write(advantage, [&]([[maybe_unused]] std::int64_t i, bool counts, double x) {
            double a = counts ? (x - baseline) * scale : 0.0;
            if constexpr (LeftOut) a = kept ? a : left_out(in, s, row, i);
            return a;
        });
        if (team.leader()) tell(s, row);
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
    // Of a lone member that keeps its reward: as if the deviation were 1.
    GRPO_HD double factor_of(const spread& s, bool kept = false) const {
        const double longer = stretch(s);
        double variance = kept ? 1.0 : variance_of(s.m2, static_cast<double>(s.n), options.ddof);
        if (options.scale == group_scale::batch && !kept) {
            variance = batch == nullptr ? batch_variance : moments::variance(*batch, options.ddof);
        }
        if (options.scale == group_scale::about_baseline) variance *= longer * longer;
        return factor(variance) * longer;
    }
    GRPO_HD double centred(const spread& s, std::int64_t i) const { return static_cast<double>(reward[i]) - s.mean; }
    // A member's advantage by the deviation of the others.
    GRPO_HD double left_out(const members<Groups>& in, const spread& s, std::int64_t row, std::int64_t i) const {
        if (!in(i)) return 0.0;
        const spread others = measure(members_but<Groups>{groups, i}, reward, row, row + 1);
        const double variance = variance_of(others.m2, static_cast<double>(others.n), options.ddof);
        return centred(s, i) * stretch(s) * factor(variance);
    }
    // The lone member that keeps its reward; its mean is that reward.
    GRPO_HD bool keeps_reward(const members<Groups>& in, std::int64_t row) const {
        const std::int64_t begin = groups.begin(row);
        return options.singleton == singleton_rule::raw_reward && groups.end(row) - begin == 1 && in(begin);
    }
    GRPO_HD void tell(const spread& s, std::int64_t row) const {
        if (report == nullptr) return;
        report[row].size = s.n;
        report[row].mean = s.mean;
        report[row].std = ::sqrt(variance_of(s.m2, static_cast<double>(s.n), options.ddof));
        report[row].degenerate = s.flat();
    }
};

// For teams of one lane: some groups at a time, step by step, so that the processor works on all of them at once instead of
// waiting for the divisions of one.
template <class Groups, class T, class Out, bool LeftOut>
struct group_blocks {
    static constexpr int block = 8;
    group_rows<Groups, T, Out, LeftOut> of;

    GRPO_HD std::int64_t blocks() const { return (of.groups.rows() + block - 1) / block; }

    template <one_lane Team>
    GRPO_HD void operator()(Team&, std::int64_t at) const {
        const Groups& groups = of.groups;
        const T* const reward = of.reward;
        const members<Groups> in{groups};
        const std::int64_t first = at * block;
        const int count = static_cast<int>(groups.rows() - first < block ? groups.rows() - first : block);
        if (count == block && together(first)) return;
        spread s[block];
        double factors[block];
        for (int k = 0; k < count; ++k) find_extent(s[k], in, reward, first + k, first + k + 1);
        for (int k = 0; k < count; ++k) find_mean(s[k], sum_of_rows{in, reward, first + k, first + k + 1});
        for (int k = 0; k < count; ++k) find_m2(s[k], sum_of_rows{in, reward, first + k, first + k + 1});
        for (int k = 0; k < count; ++k) factors[k] = of.factor_of(s[k]);
        for (int k = 0; k < count; ++k) write(in, s[k], factors[k], first + k);
        for (int k = 0; k < count; ++k) of.tell(s[k], first + k);
    }

private:
    // A whole block of groups of equal size without a mask and without a report; false, with nothing done, for any other.
    GRPO_HD bool together(std::int64_t first) const {
        if constexpr (std::same_as<Groups, padded> && !LeftOut) {
            const padded& groups = of.groups;
            const std::int64_t n = groups.width;
            if (n < 2 || n > eight_groups::largest || of.report != nullptr) return false;
            eight_groups all;
            all.load(of.reward + groups.begin(first), n, groups.stride);
            all.measure(n);
            double factors[block];
            for (int k = 0; k < block; ++k) factors[k] = of.factor_of({n, 0.0, 0.0, 0.0, all.m2[k]});
            all.write(of.advantage + groups.begin(first), n, groups.stride, factors);
            return true;
        } else {
            return false;
        }
    }
    GRPO_HD void write(const members<Groups>& in, const spread& s, double scale, std::int64_t row) const {
        const std::int64_t begin = of.groups.begin(row);
        const std::int64_t end = of.groups.end(row);
        Out* const advantage = of.advantage;
        if constexpr (LeftOut) {
            for (std::int64_t i = begin; i < end; ++i) advantage[i] = static_cast<Out>(of.left_out(in, s, row, i));
        } else {
            for (std::int64_t i = begin; i < end; ++i) {
                const double a = of.centred(s, i) * scale;
                advantage[i] = static_cast<Out>(in(i) ? a : 0.0);
            }
        }
        if (of.keeps_reward(in, row)) advantage[begin] = static_cast<Out>(s.mean * of.factor(1.0));
    }
};

template <bool LeftOut, class Exec, class Groups, class T, class Out>
void walk_groups(const Exec& exec, const Groups& groups, const T* reward, Out* advantage, const group_options& options,
                 double batch_variance, const moments::state<double>* batch, group_report* report) {
    using rows = group_rows<Groups, std::remove_const_t<T>, Out, LeftOut>;
    const rows body{groups, reward, advantage, options, batch_variance, batch, report};
    if constexpr (of_single_lanes<Exec>) {
        const group_blocks<Groups, std::remove_const_t<T>, Out, LeftOut> blocks{body};
        exec.teams(blocks.blocks(), blocks);
    } else {
        exec.teams(groups.rows(), body);
    }
}

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
problem check_group_sizes(const char* function, const Groups& groups, const Reward& reward, const Advantage& advantage) {
    if (const problem p = wants(function, "reward", reward, groups.extent(), "sequences")) return p;
    return wants(function, "advantage", advantage, groups.extent(), "sequences");
}
template <class Groups, class Reward, class Advantage>
problem check_groups(const char* function, const Groups& groups, const Reward& reward, const Advantage& advantage,
                     singleton_rule rule) {
    if (const problem p = groups.validate(function)) return p;
    if (const problem p = check_group_sizes(function, groups, reward, advantage)) return p;
    if (const problem p = lone_member(function, groups, rule)) return p;
    return not_finite(function, "reward", groups, reward.data());
}
// The same without a look at what lies in another memory.
template <class Exec, class Groups, class Reward, class Advantage>
problem check_groups_there(const Exec& exec, const char* function, const Groups& groups, const Reward& reward,
                           const Advantage& advantage, singleton_rule rule) {
    if (const problem p = check_shape(exec, function, groups)) return p;
    if (const problem p = check_group_sizes(function, groups, reward, advantage)) return p;
    if (rule == singleton_rule::error) {
        return complain(function, "options.singleton", "is error (%d), but the sizes of %lld groups lie in another memory",
                        static_cast<int>(rule), static_cast<long long>(groups.rows()));
    }
    return check_reach(exec, function, named("reward", reward), named("advantage", advantage));
}
template <class Exec, class Groups, class Reward, class Advantage>
problem check_groups_of([[maybe_unused]] const Exec& exec, const char* function, const Groups& groups, const Reward& reward,
                        const Advantage& advantage, singleton_rule rule) {
    if constexpr (on_host<Exec>) return check_groups(function, groups, reward, advantage, rule);
    else return check_groups_there(exec, function, groups, reward, advantage, rule);
}

}  // namespace detail

// Writes one advantage per sequence, and a report per group if `report` is given. advantage may be the reward's own
// memory, except with group_scale::leave_one_out. In a device's memory rewards are not looked at beforehand, and
// singleton_rule::error is refused.
template <class Executor, shape Groups, class Reward, class Advantage>
void group_normalised(const Executor& exec, const Groups& groups, const Reward& reward, Advantage&& advantage,
                      const group_options& options = {}, view<group_report> report = {}) {
    constexpr const char* function = "group_normalised";
    const view r(reward);
    const view a(advantage);
    if (!(options.ddof >= 0 && options.eps >= 0)) detail::require(options.validate(function));
    if (report.data() != nullptr) detail::require(detail::wants(function, "report", report, groups.rows(), "groups"));
    double batch_variance = 0.0;
    const moments::state<double>* batch = nullptr;
    if constexpr (detail::on_host<Executor>) {
        if (!detail::plainly_right(groups, r, a, options.singleton)) {
            detail::require(detail::check_groups(function, groups, r, a, options.singleton));
        }
        if (options.scale == group_scale::batch) {
            const detail::spread s = detail::measure(detail::members<Groups>{groups}, r.data(), 0, groups.rows());
            batch_variance = detail::variance_of(s.m2, static_cast<double>(s.n), options.ddof);
        }
    } else {
        detail::require(detail::check_groups_there(exec, function, groups, r, a, options.singleton));
        detail::require(detail::check_reach(exec, function, detail::named("report", report)));
        if (options.scale == group_scale::batch) {
            batch = detail::moments_of(exec, groups, r.data());
        }
    }
    if (options.scale == group_scale::leave_one_out) {
        detail::walk_groups<true>(exec, groups, r.data(), a.data(), options, batch_variance, batch, report.data());
    } else {
        detail::walk_groups<false>(exec, groups, r.data(), a.data(), options, batch_variance, batch, report.data());
    }
}

template <shape Groups, class Reward, class Advantage>
void group_normalised(const Groups& groups, const Reward& reward, Advantage&& advantage,
                      const group_options& options = {}, view<group_report> report = {}) {
    group_normalised(serial{}, groups, reward, advantage, options, report);
}

}  // namespace grpo::inline v0
