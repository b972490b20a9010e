// Outcome and process supervision of GRPO (arXiv 2402.03300, §4.1.2 and §4.1.3), one advantage per token.
#pragma once

#include <cstdint>

#include <grpo/advantage/group.hpp>
#include <grpo/advantage/layout.hpp>
#include <grpo/advantage/returns.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// Every token of a sequence gets its sequence's group-normalised reward. `per_sequence` receives those; tokens that are
// not active get 0. (A loss can broadcast by itself: advantage(by_sequence(a)) needs no token array.)
template <class Executor, shape Groups, shape Shape, class Reward, class PerSequence, class Advantage>
void outcome_supervision(const Executor& exec, const Groups& groups, const Shape& layout, const Reward& reward,
                         PerSequence&& per_sequence, Advantage&& advantage, const group_options& options = {}) {
    constexpr const char* function = "outcome_supervision";
    const view a(advantage);
    detail::require(detail::check_shape(exec, function, groups));
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::wrong_size(function, "layout's rows", layout.rows(), groups.extent(), "sequences"));
    detail::require(detail::wants(function, "advantage", a, layout.extent(), "positions"));
    detail::require(detail::check_reach(exec, function, detail::named("advantage", a)));
    group_normalised(exec, groups, reward, per_sequence, options);
    spread_to_tokens(exec, layout, per_sequence, advantage);
}
template <shape Groups, shape Shape, class Reward, class PerSequence, class Advantage>
void outcome_supervision(const Groups& groups, const Shape& layout, const Reward& reward, PerSequence&& per_sequence,
                         Advantage&& advantage, const group_options& options = {}) {
    outcome_supervision(serial{}, groups, layout, reward, per_sequence, advantage, options);
}

// The steps of all sequences, one after the other: sequence i has the steps offsets[i] to offsets[i + 1], end excluded.
// end[j] is the last token of step j, counted from the start of its sequence (masked tokens included), never falling
// within a sequence. reward[j] is the step's.
template <class T, class I = std::int64_t, class E = I>
struct reasoning_steps {
    view<const I> offsets;
    view<const E> end;
    view<const T> reward;
};

// The paper states neither ddof nor eps; these are those of group_normalised.
struct process_options {
    int ddof = 1;
    double eps = 1e-6;
    eps_placement placement = eps_placement::outside;
};

namespace detail {

// The steps of each group, as a shape over steps.
template <class Groups, class I>
struct steps_of_groups : shape_base<steps_of_groups<Groups, I>> {
    Groups groups;
    view<const I> offsets;
    std::int64_t steps;

    steps_of_groups(const Groups& g, view<const I> o, std::int64_t all) : groups(g), offsets(o), steps(all) {}

    GRPO_HD std::int64_t rows() const { return groups.rows(); }
    GRPO_HD std::int64_t begin(std::int64_t row) const { return static_cast<std::int64_t>(offsets[groups.begin(row)]); }
    GRPO_HD std::int64_t end(std::int64_t row) const { return static_cast<std::int64_t>(offsets[groups.end(row)]); }
    GRPO_HD std::int64_t extent() const { return steps; }
    problem validate(const char* function) const { return groups.validate(function); }
};

// Each step's normalised reward on the token that it ends at, masked or not; the scan then adds up what comes later. A lane
// of many looks up the steps that end at its token, so that no two lanes write to one.
template <class Shape, class Steps, class T, class Out>
struct placed_steps {
    Shape layout;
    Steps steps;
    const T* normalised;
    Out* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const std::int64_t begin = layout.begin(row);
        team.template each<double>(begin, layout.end(row), [&](cursor<double> at) {
            Out sum = Out(0);
            for (std::int64_t j = first_from(row, at.i - begin); j < steps.offsets[row + 1] && steps.end[j] == at.i - begin; ++j) {
                sum += static_cast<Out>(normalised[j]);
            }
            out[at.i] = sum;
        });
    }
    template <one_lane Team>
    GRPO_HD void operator()(Team&, std::int64_t row) const {
        const std::int64_t begin = layout.begin(row);
        for (std::int64_t i = begin; i < layout.end(row); ++i) out[i] = Out(0);
        for (std::int64_t j = steps.offsets[row]; j < steps.offsets[row + 1]; ++j) {
            out[begin + static_cast<std::int64_t>(steps.end[j])] += static_cast<Out>(normalised[j]);
        }
    }

private:
    // The first step of a sequence that ends at token t or later.
    GRPO_HD std::int64_t first_from(std::int64_t row, std::int64_t t) const {
        std::int64_t low = steps.offsets[row];
        std::int64_t high = steps.offsets[row + 1];
        while (low < high) {
            const std::int64_t middle = low + (high - low) / 2;
            if (static_cast<std::int64_t>(steps.end[middle]) < t) low = middle + 1;
            else high = middle;
        }
        return low;
    }
};

template <class Shape, class Out>
struct later_sums {
    static constexpr bool takes_packs = true;
    Shape layout;
    Out* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        using V = typename Team::template vector<compute_of<Out>>;
        const auto element = [&](cursor<V> at) { return affine<V>{V(constant<V>(1)), at.load(out)}; };
        const auto write = [&](cursor<V> at, const V& sum) {
            at.store(out, math::select<V>(layout.active(at), sum, V(constant<V>(0))));
        };
        team.template scan<V>(layout.begin(row), layout.end(row), element, write);
    }
};

// Every end within its sequence, and none before the one before.
template <class Shape, class Steps>
problem check_ends(const char* function, const Shape& layout, const Steps& steps) {
    for (std::int64_t row = 0; row < layout.rows(); ++row) {
        const long long length = layout.end(row) - layout.begin(row);
        long long before = 0;
        for (std::int64_t j = steps.offsets[row]; j < steps.offsets[row + 1]; ++j) {
            const long long end = static_cast<long long>(steps.end[j]);
            if (end < before || end >= length) {
                return complain(function, "steps.end", "has %lld at step %lld, but must lie in [%lld, %lld)", end,
                                static_cast<long long>(j), before, length);
            }
            before = end;
        }
    }
    return {};
}
template <class Exec, class Shape, class Steps>
problem check_steps(const Exec& exec, const char* function, const Shape& layout, const Steps& steps) {
    if (const problem p = wants(function, "steps.offsets", steps.offsets, layout.rows() + 1,
                                "sequences (one offset more than those)")) {
        return p;
    }
    std::int64_t all = steps.end.size();
    if constexpr (on_host<Exec>) {
        if (const problem p = ragged(steps.offsets).validate(function)) return p;
        all = ragged(steps.offsets).extent();
    }
    if (const problem p = wants(function, "steps.end", steps.end, all, "steps")) return p;
    if (const problem p = wants(function, "steps.reward", steps.reward, all, "steps")) return p;
    if constexpr (on_host<Exec>) return check_ends(function, layout, steps);
    else return check_reach(exec, function, named("steps.offsets", steps.offsets), named("steps.end", steps.end),
                            named("steps.reward", steps.reward));
}

}  // namespace detail

// Process supervision: all step rewards of a group are normalised together, r~ = (r - mean) / std, and a token gets the
// sum of r~ over the steps of its sequence that end at it or later; 0 where not active. `normalised` receives r~, one
// per step. A group with a single step, or with equal ones, gets 0.
template <class Executor, shape Groups, shape Shape, class T, class I, class E, class Normalised, class Advantage>
void process_supervision(const Executor& exec, const Groups& groups, const Shape& layout,
                         const reasoning_steps<T, I, E>& steps, Normalised&& normalised, Advantage&& advantage,
                         const process_options& options = {}) {
    constexpr const char* function = "process_supervision";
    const view a(advantage);
    const view normal(normalised);
    detail::require(detail::check_shape(exec, function, layout));
    detail::require(detail::check_shape(exec, function, groups));
    detail::require(detail::wrong_size(function, "layout's rows", layout.rows(), groups.extent(), "sequences"));
    detail::require(detail::wants(function, "advantage", a, layout.extent(), "positions"));
    detail::require(detail::check_steps(exec, function, layout, steps));
    detail::require(detail::check_reach(exec, function, detail::named("normalised", normal), detail::named("advantage", a)));
    using N = detail::plain<decltype(normal[0])>;
    using Out = detail::plain<decltype(a[0])>;
    group_normalised(exec, detail::steps_of_groups<Groups, I>(groups, steps.offsets, steps.reward.size()), steps.reward, normal,
                     {.ddof = options.ddof, .eps = options.eps, .placement = options.placement});
    exec.teams(layout.rows(),
               detail::placed_steps<Shape, reasoning_steps<T, I, E>, N, Out>{layout, steps, normal.data(), a.data()});
    exec.teams(layout.rows(), detail::later_sums<Shape, Out>{layout, a.data()});
}
template <shape Groups, shape Shape, class T, class I, class E, class Normalised, class Advantage>
void process_supervision(const Groups& groups, const Shape& layout, const reasoning_steps<T, I, E>& steps,
                         Normalised&& normalised, Advantage&& advantage, const process_options& options = {}) {
    process_supervision(serial{}, groups, layout, steps, normalised, advantage, options);
}

}  // namespace grpo::inline v0
