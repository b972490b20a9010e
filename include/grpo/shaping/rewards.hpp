// Reward shaping, one number per sequence. Each function reads `reward` and writes `out`, which may be the same memory; a
// NaN reward stays NaN. Group filters take the rewards before any of this (R1.45). Each has an executor as an optional first
// argument.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/detail/entries.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// The soft overlong penalty: 0 up to max_length - buffer, then on a line to -factor at max_length.
// Beyond max_length it stays -factor (DAPO, arXiv 2503.14476, eq. 13; TRL, OpenRLHF), or with cap = false goes further down
// the line (verl, NeMo RL, AReaL, tunix). Length in tokens. Defaults: the paper's 16384 + 4096.
struct overlong {
    double max_length = 20480;
    double buffer = 4096;
    double factor = 1.0;
    bool cap = true;

    GRPO_HD double operator()(double length) const {
        const double excess = length - (max_length - buffer);
        if (!(excess > 0)) return 0.0;
        const double share = excess / buffer;
        return factor == 0 ? 0.0 : -(cap && share > 1 ? 1.0 : share) * factor;
    }
    problem validate(const char* function) const {
        const problem p = detail::first_of(detail::below(function, "overlong.factor", factor, 0.0),
                                           detail::below(function, "overlong.max_length", max_length, buffer));
        if (p || buffer > 0) return p;
        return detail::complain(function, "overlong.buffer", "is %g, but must be above %g", buffer, 0.0);
    }
};

// Truncated sequences keep the share `coef` of their reward, 0 to 1 (stop properly, ProRL; NeMo RL). A negative coef
// replaces their reward (OpenRLHF).
struct stop_properly {
    double coef = 0.0;

    GRPO_HD double operator()(double reward, bool truncated) const {
        return !truncated ? reward : coef < 0 ? coef : coef * reward;
    }
    problem validate(const char* function) const {
        if (coef <= 1) return {};
        return detail::complain(function, "stop_properly.coef", "is %g, but must be at most %g", coef, 1.0);
    }
};

// Sequences without an end-of-sequence token lose `penalty` (TRL), or get it as their reward (torchtune, -3).
struct missing_eos {
    double penalty = 1.0;
    bool replace = false;

    GRPO_HD double operator()(double reward, bool ended) const { return ended ? reward : replace ? penalty : reward - penalty; }
};

// clip((reward + bias) · scale, low, high). Defaults: OpenRLHF's ±10. AReaL: ±20 with bias and scale.
struct reward_clip {
    double bias = 0.0;
    double scale = 1.0;
    double low = -10.0;
    double high = 10.0;

    GRPO_HD double operator()(double reward) const {
        const double x = (reward + bias) * scale;
        return x < low ? low : high < x ? high : x;
    }
    problem validate(const char* function) const {
        if (low <= high) return {};
        return detail::complain(function, "reward_clip", "has the lower bound %g above the upper bound %g", low, high);
    }
};

// [from_low, from_high] onto [to_low, to_high], clamped to it (NeMo RL). to_low may be above to_high.
struct linear_rescale {
    double from_low = 0.0;
    double from_high = 1.0;
    double to_low = 0.0;
    double to_high = 1.0;

    GRPO_HD double operator()(double reward) const {
        const double x = reward < from_low ? from_low : from_high < reward ? from_high : reward;
        return to_low + (x - from_low) / (from_high - from_low) * (to_high - to_low);
    }
    problem validate(const char* function) const {
        if (from_low < from_high) return {};
        return detail::complain(function, "linear_rescale.from_low", "is %g, but must be below from_high, %g", from_low,
                                from_high);
    }
};

namespace detail {

template <class T>
problem validate_entries(const char* function, const char* argument, view<T> x, std::int64_t wanted) {
    if (x.size() != wanted) {
        return complain(function, argument, "has %lld entries, but there are %lld sequences",
                        static_cast<long long>(x.size()), static_cast<long long>(wanted));
    }
    return null_pointer(function, argument, x.data(), x.size());
}
template <class Rule>
problem validate_rule(const Rule& rule, const char* function) {
    if constexpr (requires { rule.validate(function); }) {
        return rule.validate(function);
    } else {
        return {};
    }
}

// Checks of some entries, and where they lie.
template <class Exec, class T>
problem validate_entries(const Exec& exec, const char* function, const char* argument, view<T> x, std::int64_t wanted) {
    if (const problem p = validate_entries(function, argument, x, wanted)) return p;
    return check_reach(exec, function, named(argument, x));
}

template <class Lengths, class Out>
struct overlong_entries {
    const Lengths* length;
    overlong rule;
    Out* penalty;

    GRPO_HD void operator()(std::int64_t i) const { penalty[i] = static_cast<Out>(rule(static_cast<double>(length[i]))); }
};
template <class T, class Rule, class Out>
struct shaped_entries {
    const T* reward;
    Rule rule;
    Out* out;

    GRPO_HD void operator()(std::int64_t i) const { out[i] = static_cast<Out>(rule(static_cast<double>(reward[i]))); }
};
template <class T, class Rule, class Flag, class Out>
struct flagged_entries {
    const T* reward;
    Rule rule;
    const Flag* flag;
    Out* out;

    GRPO_HD void operator()(std::int64_t i) const {
        out[i] = static_cast<Out>(rule(static_cast<double>(reward[i]), flag[i] != Flag(0)));
    }
};

}  // namespace detail

// penalty[i] of length[i] tokens.
template <class Executor, class Lengths, class Out>
void overlong_penalty(const Executor& exec, const Lengths& length, const overlong& rule, Out&& penalty) {
    constexpr const char* function = "overlong_penalty";
    const view x(length);
    const view out(penalty);
    using L = std::remove_cvref_t<decltype(x[0])>;
    using T = std::remove_reference_t<decltype(out[0])>;
    detail::require(detail::first_of(rule.validate(function), detail::validate_entries(exec, function, "length", x, x.size()),
                                     detail::validate_entries(exec, function, "penalty", out, x.size())));
    detail::walk_entries(exec, x.size(), detail::overlong_entries<L, T>{x.data(), rule, out.data()});
}
template <class Lengths, class Out>
void overlong_penalty(const Lengths& length, const overlong& rule, Out&& penalty) {
    overlong_penalty(serial{}, length, rule, penalty);
}

// out[i] = rule(reward[i]), for reward_clip, linear_rescale or a function of one's own.
template <executor Executor, class Rewards, class Rule, class Out>
void shape_rewards(const Executor& exec, const Rewards& reward, const Rule& rule, Out&& out) {
    constexpr const char* function = "shape_rewards";
    const view x(reward);
    const view to(out);
    using T = std::remove_cvref_t<decltype(x[0])>;
    using To = std::remove_reference_t<decltype(to[0])>;
    detail::require(detail::first_of(detail::validate_rule(rule, function),
                                     detail::validate_entries(exec, function, "reward", x, x.size()),
                                     detail::validate_entries(exec, function, "out", to, x.size())));
    detail::walk_entries(exec, x.size(), detail::shaped_entries<T, Rule, To>{x.data(), rule, to.data()});
}
template <class Rewards, class Rule, class Out>
void shape_rewards(const Rewards& reward, const Rule& rule, Out&& out) {
    shape_rewards(serial{}, reward, rule, out);
}

// out[i] = rule(reward[i], flag[i] != 0): stop_properly with flag = truncated, missing_eos with flag = ended.
template <executor Executor, class Rewards, class Rule, class Flags, class Out>
void shape_rewards(const Executor& exec, const Rewards& reward, const Rule& rule, const Flags& flag, Out&& out) {
    constexpr const char* function = "shape_rewards";
    const view x(reward);
    const view which(flag);
    const view to(out);
    using T = std::remove_cvref_t<decltype(x[0])>;
    using F = std::remove_cvref_t<decltype(which[0])>;
    using To = std::remove_reference_t<decltype(to[0])>;
    detail::require(detail::first_of(detail::validate_rule(rule, function),
                                     detail::validate_entries(exec, function, "reward", x, x.size()),
                                     detail::validate_entries(exec, function, "flag", which, x.size()),
                                     detail::validate_entries(exec, function, "out", to, x.size())));
    detail::walk_entries(exec, x.size(), detail::flagged_entries<T, Rule, F, To>{x.data(), rule, which.data(), to.data()});
}
template <class Rewards, class Rule, class Flags, class Out>
    requires(!executor<Rewards>)
void shape_rewards(const Rewards& reward, const Rule& rule, const Flags& flag, Out&& out) {
    shape_rewards(serial{}, reward, rule, flag, out);
}

}  // namespace grpo::inline v0
