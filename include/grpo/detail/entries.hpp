// Bodies for what has no order and no sum: one number per entry, or one per row that goes to its entries.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0::detail {

// write(i) for i of [0, n): a row each, so that a device has a lane for every one.
template <class Write>
struct each_entry {
    std::int64_t n;
    Write write;

    GRPO_HD std::int64_t entries() const { return n; }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        if (team.leader()) write(i);
    }
};
template <class Exec, class Write>
void walk_entries(const Exec& exec, std::int64_t n, const Write& write) {
    exec.teams(n, each_entry<Write>{n, write});
}

// out = of_row(row) at the active positions of a row, 0 elsewhere. `out` may be the shape's own mask.
template <class Shape, class OfRow, class M>
struct expanded_rows {
    Shape layout;
    OfRow of_row;
    M* out;

    GRPO_HD std::int64_t entries() const { return layout.extent(); }

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t row) const {
        const M x = of_row(row);
        team.template each<double>(layout.begin(row), layout.end(row),
                                   [&](cursor<double> at) { out[at.i] = layout.active(at) ? x : M(0); });
    }
};
template <class Exec, class Shape, class OfRow, class M>
void expand(const Exec& exec, const Shape& layout, const OfRow& of_row, M* out) {
    exec.teams(layout.rows(), expanded_rows<Shape, OfRow, M>{layout, of_row, out});
}

}  // namespace grpo::inline v0::detail
