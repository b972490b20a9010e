// PF-PPO's resampling of the batch with replacement (arXiv 2409.06957): how likely each response is drawn.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <grpo/advantage/group.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/entries.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// Weights, and the same divided by their sum.
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

namespace detail {

// What a weight depends on beside its own reward, and the sum of the weights.
struct pf_ppo_batch {
    extrema::state<double> range;
    double total = 0;

    GRPO_HD double weight(const pf_ppo_options& options, double x) const {
        const bool top = x == range.greatest;
        if (options.kind == pf_ppo_kind::power) return ::pow(::fabs(x), options.power) + options.eps;
        if (options.kind == pf_ppo_kind::max_min) return (top || x == range.least ? 1.0 : 0.0) + options.eps;
        return (top ? 0.4 : 0.1) + options.eps;
    }
};
struct add_pf_ppo {
    GRPO_HD void operator()(pf_ppo_batch& all, const pf_ppo_batch& row) const { merge(all, row); }
    GRPO_HD static void merge(pf_ppo_batch& all, const pf_ppo_batch& later) {
        extrema::merge(all.range, later.range);
        all.total += later.total;
    }
};

// The rewards as one row: their extremes, then the sum as well.
template <class T>
struct pf_ppo_extremes {
    padded all;
    const T* reward;

    GRPO_HD std::int64_t entries() const { return all.extent(); }

    template <class Team>
    GRPO_HD pf_ppo_batch operator()(Team& team, std::int64_t row) const {
        return {team.template fold<extrema, double>(all.begin(row), all.end(row), [&](auto& state, cursor<double> at) {
            extrema::add(state, at.load(reward));
        })};
    }
};
template <class T, class Known>
struct pf_ppo_sum {
    padded all;
    const T* reward;
    pf_ppo_options options;
    Known known;

    GRPO_HD std::int64_t entries() const { return all.extent(); }

    template <class Team>
    GRPO_HD pf_ppo_batch operator()(Team& team, std::int64_t row) const {
        pf_ppo_batch batch = told(known);
        const auto total = team.template fold<tally<1>, double>(all.begin(row), all.end(row), [&](auto& state, cursor<double> at) {
            state.sum[0] += batch.weight(options, at.load(reward));
        });
        batch.total = total.sum[0];
        return batch;
    }
};
template <class T, class Out, class Chance, class Known>
struct pf_ppo_entries {
    const T* reward;
    Out* weight;
    Chance* probability;
    std::int64_t n;
    pf_ppo_options options;
    Known known;

    GRPO_HD void operator()(std::int64_t i) const {
        const pf_ppo_batch& batch = told(known);
        const double own = batch.weight(options, static_cast<double>(reward[i]));
        weight[i] = static_cast<Out>(own);
        probability[i] = static_cast<Chance>(batch.total > 0 ? own / batch.total : 1.0 / static_cast<double>(n));
    }
};

}  // namespace detail

template <executor Executor, class Reward, class Weight, class Probability>
void pf_ppo_weights(const Executor& exec, const Reward& reward, Weight&& weight, Probability&& probability,
                    const pf_ppo_options& options = {}) {
    constexpr const char* function = "pf_ppo_weights";
    const view r(reward);
    const view w(weight);
    const view p(probability);
    const padded all(1, r.size());
    detail::require(detail::below(function, "eps", options.eps, 0));
    detail::require(detail::check_groups_of(exec, function, all, r, w, singleton_rule::zero));
    detail::require(detail::check_array(exec, function, "probability", p, r.size(), "sequences"));
    using T = detail::plain<decltype(r[0])>;
    using Out = detail::plain<decltype(w[0])>;
    using Chance = detail::plain<decltype(p[0])>;
    const auto fold = [&](const auto& rows) {
        return detail::fold_rows<detail::pf_ppo_batch>(detail::aside(exec), 1, rows, detail::add_pf_ppo{});
    };
    const auto range = fold(detail::pf_ppo_extremes<T>{all, r.data()});
    using known = std::remove_const_t<decltype(range)>;
    const known batch = fold(detail::pf_ppo_sum<T, known>{all, r.data(), options, range});
    detail::walk_entries(exec, r.size(),
                         detail::pf_ppo_entries<T, Out, Chance, known>{r.data(), w.data(), p.data(), r.size(), options, batch});
}
template <class Reward, class Weight, class Probability>
void pf_ppo_weights(const Reward& reward, Weight&& weight, Probability&& probability, const pf_ppo_options& options = {}) {
    pf_ppo_weights(serial{}, reward, weight, probability, options);
}

}  // namespace grpo::inline v0
