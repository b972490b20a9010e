// The moments of a whole array in one pass: what executors of another memory normalise a batch by, since no host can shift a
// second pass by the outcome of the first.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0::detail {

// Of the active entries of a row.
template <class Shape, class T>
struct moment_rows {
    Shape layout;
    const T* x;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD moments::state<double> operator()(Team& team, std::int64_t row) const {
        return team.template fold<moments, double>(layout.begin(row), layout.end(row), [&](auto& state, cursor<double> at) {
            if (layout.active(at)) moments::add(state, at.load(x));
        });
    }
};
struct add_moments {
    using state = moments::state<double>;
    GRPO_HD void operator()(state& all, const state& row) const { moments::merge(all, row); }
    GRPO_HD static void merge(state& all, const state& later) { moments::merge(all, later); }
};
// Of the active entries of all rows: where they will be.
template <class Exec, class Shape, class T>
const moments::state<double>* moments_of(const Exec& exec, const Shape& layout, const T* x) {
    const moment_rows<Shape, std::remove_const_t<T>> rows{layout, x};
    return fold_rows<moments::state<double>>(aside(exec), layout.rows(), rows, add_moments{});
}

}  // namespace grpo::inline v0::detail
