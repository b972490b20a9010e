// What a linear head does to rows of hidden states beside multiplying them, where they lie in another memory than the host's:
// chunks are of consecutive tokens there, and those that do not count are rows of zeros.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/head/input.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0::detail {

struct count_positions {
    std::int64_t* positions;

    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        if (team.leader()) positions[i] = i;
    }
};

// Row i of `to` from row i of `from`: copied where the token counts, zeros where it is masked; between the rows of a shape,
// zeros as well, or nothing.
template <class T, class Uses>
struct rows_that_count {
    const T* from;
    T* to;
    std::int64_t rows;
    std::int64_t width;
    std::int64_t first;  // the token of row 0
    Uses uses;
    bool clears_outside;

    GRPO_HD std::int64_t entries() const { return rows * width; }
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        const row_use use = uses(first + i);
        if (use == row_use::outside && !clears_outside) return;
        const T* const source = from + i * width;
        T* const target = to + i * width;
        team.template each<double>(0, width, [&](const cursor<double>& at) {
            target[at.i] = use == row_use::active ? source[at.i] : T(0.0f);
        });
    }
};

// Rows of d_logits that the head did not write, since they lie between the rows of a shape: zeros.
template <class T, class Uses>
struct rows_outside {
    T* to;
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t stride;
    std::int64_t first;
    Uses uses;

    GRPO_HD std::int64_t entries() const { return rows * columns; }
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t i) const {
        if (uses(first + i) != row_use::outside) return;
        T* const target = to + i * stride;
        team.template each<double>(0, columns, [&](const cursor<double>& at) { target[at.i] = T(0.0f); });
    }
};

}  // namespace grpo::inline v0::detail
