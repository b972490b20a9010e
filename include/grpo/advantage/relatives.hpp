// Relatives of the group-normalised advantage, one number per sequence. All take groups (a shape over sequences, with
// where(valid) for rewards that cannot be scored) and write 0 for what is left out. Cheap next to any model, they run
// on one lane in a fixed order.
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/advantage/group.hpp>
#include <grpo/advantage/whiten.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// A_i = r_i - mean: Dr.GRPO (arXiv 2503.20783). The loss half of that method is aggregation::constant_length.
template <shape Groups, class Reward, class Advantage>
void dr_grpo(const Groups& groups, const Reward& reward, Advantage&& advantage,
             singleton_rule singleton = singleton_rule::zero) {
    group_normalised(groups, reward, advantage, {.scale = group_scale::none, .singleton = singleton});
}

// A_i = r_i - mean of the others (arXiv 2402.14740), then optionally normalised over the batch: TRL's RLOO with
// (A - mean) / (std + 1e-4). A lone sample: 0 (tunix, TRL), or its reward (verl).
struct rloo_options {
    singleton_rule singleton = singleton_rule::zero;
    bool batch_normalise = false;
    whiten_options batch{.ddof = 1, .eps = 1e-4, .placement = eps_placement::outside, .center = true};
};

namespace detail {
// Shapes with the same active entries, in one row or many, are whitened alike.
template <class Groups, class Advantage>
void whiten_valid(const Groups& groups, Advantage& advantage, const whiten_options& options) {
    whiten(serial{}, groups, advantage, advantage, options);
}
}  // namespace detail

template <shape Groups, class Reward, class Advantage>
void rloo(const Groups& groups, const Reward& reward, Advantage&& advantage, const rloo_options& options = {}) {
    detail::require(options.batch.validate("rloo"));
    group_normalised(
        groups, reward, advantage,
        {.baseline = group_baseline::leave_one_out, .scale = group_scale::none, .singleton = options.singleton});
    if (options.batch_normalise) detail::whiten_valid(groups, advantage, options.batch);
}

// A_i = (r_i - mean)·alpha / norm with alpha = B / (rewards that are not 0, at least 1) (arXiv 2504.02546). B counts
// the valid rewards. verl keeps a lone sample's reward.
struct gpg_options {
    singleton_rule singleton = singleton_rule::raw_reward;
    double norm = 1.0;
};

template <shape Groups, class Reward, class Advantage>
void gpg_advantage(const Groups& groups, const Reward& reward, Advantage&& advantage, const gpg_options& options = {}) {
    detail::require(options.norm > 0
                        ? problem{}
                        : detail::complain("gpg_advantage", "norm", "is %g, but must be above %g", options.norm, 0.0));
    const view r(reward);
    const view a(advantage);
    detail::require(detail::check_groups("gpg_advantage", groups, r, a, options.singleton));
    std::int64_t valid = 0;
    std::int64_t scored = 0;
    for (std::int64_t row = 0; row < groups.rows(); ++row) {
        for (std::int64_t i = groups.begin(row); i < groups.end(row); ++i) {
            const bool counts = groups.active(cursor<double>{i});
            valid += counts ? 1 : 0;
            scored += counts && static_cast<double>(r[i]) != 0 ? 1 : 0;
        }
    }
    dr_grpo(groups, reward, advantage, options.singleton);
    const double scale = static_cast<double>(valid) / static_cast<double>(scored > 0 ? scored : 1) / options.norm;
    using Out = detail::plain<decltype(a[0])>;
    for (std::int64_t row = 0; row < groups.rows(); ++row) {
        for (std::int64_t i = groups.begin(row); i < groups.end(row); ++i) {
            a[i] = static_cast<Out>(static_cast<double>(a[i]) * scale);
        }
    }
}

// A_i = r_i - Σ n_j r_j / Σ n_j, the length-weighted baseline (arXiv 2505.23585). n_j: the active tokens of sequence j
// in `tokens`, a shape over tokens with one row per sequence. A group without any token gets 0.
template <shape Groups, shape Tokens, class Reward, class Advantage>
void opo(const Groups& groups, const Tokens& tokens, const Reward& reward, Advantage&& advantage,
         singleton_rule singleton = singleton_rule::raw_reward) {
    constexpr const char* function = "opo";
    const view r(reward);
    const view a(advantage);
    detail::require(detail::check_groups(function, groups, r, a, singleton));
    detail::require(tokens.validate(function));
    detail::require(detail::wrong_size(function, "tokens", tokens.rows(), groups.extent(), "sequences"));
    using Out = detail::plain<decltype(a[0])>;
    for (std::int64_t row = 0; row < groups.rows(); ++row) {
        const std::int64_t begin = groups.begin(row);
        const std::int64_t end = groups.end(row);
        const detail::members<Groups> in{groups};
        detail::spread extent;
        detail::find_extent(extent, in, r.data(), row, row + 1);
        const double least = extent.least;
        double n = 0;
        double sum = 0;
        for (std::int64_t i = begin; i < end; ++i) {
            if (!in(i)) continue;
            const double length = static_cast<double>(tokens.count_active(i));
            n += length;
            sum += length * (static_cast<double>(r[i]) - least);
        }
        const bool lone = end - begin == 1 && singleton == singleton_rule::raw_reward;
        const double base = lone ? 0.0 : least + sum / (n > 0 ? n : 1.0);
        for (std::int64_t i = begin; i < end; ++i) {
            const bool counts = in(i) && (n > 0 || lone);
            a[i] = static_cast<Out>(counts ? static_cast<double>(r[i]) - base : 0.0);
        }
    }
}

// Only the strictly best response scores, by its lead over the second best, divided by the group's deviation + eps
// (arXiv 2503.19595). A tie for the best gives 0 to all. advantage may be the reward's own memory.
struct pass_at_k_options {
    int ddof = 1;
    double eps = 1e-6;
    bool normalise = true;
    singleton_rule singleton = singleton_rule::zero;
};

template <shape Groups, class Reward, class Advantage>
void pass_at_k_advantage(const Groups& groups, const Reward& reward, Advantage&& advantage,
                         const pass_at_k_options& options = {}) {
    constexpr const char* function = "pass_at_k_advantage";
    const view r(reward);
    const view a(advantage);
    detail::require(group_options{.ddof = options.ddof, .eps = options.eps}.validate(function));
    detail::require(detail::check_groups(function, groups, r, a, options.singleton));
    using Out = detail::plain<decltype(a[0])>;
    const detail::members<Groups> in{groups};
    for (std::int64_t row = 0; row < groups.rows(); ++row) {
        const detail::spread s = detail::measure(in, r.data(), row, row + 1);
        double best = -detail::past_all;
        double second = -detail::past_all;
        std::int64_t winner = -1;
        for (std::int64_t i = groups.begin(row); i < groups.end(row); ++i) {
            if (!in(i)) continue;
            const double x = static_cast<double>(r[i]);
            second = best < x ? best : (second < x ? x : second);
            winner = best < x ? i : winner;
            best = best < x ? x : best;
        }
        const double variance = detail::variance_of(s.m2, static_cast<double>(s.n), options.ddof);
        const double scale =
            options.normalise ? detail::normalising_factor(variance, options.eps, eps_placement::outside) : 1.0;
        const bool lone = groups.end(row) - groups.begin(row) == 1 && s.n == 1;
        for (std::int64_t i = groups.begin(row); i < groups.end(row); ++i) a[i] = Out(0);
        if (s.n > 1) a[winner] = static_cast<Out>((best - second) * scale);
        if (lone && options.singleton == singleton_rule::raw_reward) a[winner] = static_cast<Out>(best);
    }
}

// A = r, NeMo RL's raw reward; whiten() follows where wanted.
template <shape Groups, class Reward, class Advantage>
void raw_reward(const Groups& groups, const Reward& reward, Advantage&& advantage) {
    const view r(reward);
    const view a(advantage);
    detail::require(detail::check_groups("raw_reward", groups, r, a, singleton_rule::zero));
    using Out = detail::plain<decltype(a[0])>;
    for (std::int64_t row = 0; row < groups.rows(); ++row) {
        for (std::int64_t i = groups.begin(row); i < groups.end(row); ++i) {
            a[i] = groups.active(cursor<double>{i}) ? static_cast<Out>(r[i]) : Out(0);
        }
    }
}

// A = min(max(A, low), high) where the shape is active, in place; elsewhere untouched.
template <shape Shape, class Advantage>
void clip_advantage(const Shape& layout, Advantage&& advantage, double low, double high) {
    constexpr const char* function = "clip_advantage";
    const view a(advantage);
    detail::require(detail::below(function, "high", high, low));
    detail::require(layout.validate(function));
    detail::require(detail::wants(function, "advantage", a, layout.extent(), "positions"));
    using Out = detail::plain<decltype(a[0])>;
    for (std::int64_t row = 0; row < layout.rows(); ++row) {
        for (std::int64_t i = layout.begin(row); i < layout.end(row); ++i) {
            if (!layout.active(cursor<double>{i})) continue;
            const double x = static_cast<double>(a[i]);
            a[i] = static_cast<Out>(x < low ? low : (high < x ? high : x));
        }
    }
}

// Weights of PF-PPO's resampling of the batch with replacement (arXiv 2409.06957), and the same divided by their sum.
enum class pf_ppo_kind {
    power,       // |r|^power
    max_min,     // 1 for the greatest and the least reward, else 0
    max_random,  // 0.4 for the greatest, 0.1 for the others
};
struct pf_ppo_options {
    pf_ppo_kind kind = pf_ppo_kind::power;
    double power = 2.0;
    double eps = 1e-8;  // added to every weight, so that none is 0
};

template <class Reward, class Weight, class Probability>
void pf_ppo_weights(const Reward& reward, Weight&& weight, Probability&& probability,
                    const pf_ppo_options& options = {}) {
    constexpr const char* function = "pf_ppo_weights";
    const view r(reward);
    const view w(weight);
    const view p(probability);
    const padded all(1, r.size());
    detail::require(detail::below(function, "eps", options.eps, 0));
    detail::require(detail::check_groups(function, all, r, w, singleton_rule::zero));
    detail::require(detail::wants(function, "probability", p, r.size(), "sequences"));
    detail::spread s;
    detail::find_extent(s, detail::members<padded>{all}, r.data(), 0, 1);
    using Out = detail::plain<decltype(w[0])>;
    using Chance = detail::plain<decltype(p[0])>;
    const auto weight_of = [&](std::int64_t i) {
        const double x = static_cast<double>(r[i]);
        const bool top = x == s.greatest;
        if (options.kind == pf_ppo_kind::power) return ::pow(::fabs(x), options.power) + options.eps;
        if (options.kind == pf_ppo_kind::max_min) return (top || x == s.least ? 1.0 : 0.0) + options.eps;
        return (top ? 0.4 : 0.1) + options.eps;
    };
    double total = 0;
    for (std::int64_t i = 0; i < r.size(); ++i) total += weight_of(i);
    for (std::int64_t i = 0; i < r.size(); ++i) {
        const double own = weight_of(i);
        w[i] = static_cast<Out>(own);
        p[i] = static_cast<Chance>(total > 0 ? own / total : 1.0 / static_cast<double>(r.size()));
    }
}

}  // namespace grpo::inline v0
