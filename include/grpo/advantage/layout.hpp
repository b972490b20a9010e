// Token layouts for recurrences: any shape over tokens, or time-major arrays [T, B], and the walk along one row.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/advantage/normalise.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// [T, B]: step t of sequence b lies at t·stride + b (stride 0 means `sequences`). Masks: time_major(...).where(mask).
struct time_major : detail::shape_base<time_major> {
    std::int64_t steps = 0;
    std::int64_t n = 0;
    std::int64_t stride = 0;

    GRPO_HD constexpr time_major(std::int64_t time_steps, std::int64_t sequences, std::int64_t time_stride = 0)
        : steps(time_steps), n(sequences), stride(time_stride == 0 ? sequences : time_stride) {}

    GRPO_HD std::int64_t rows() const { return n; }
    GRPO_HD std::int64_t extent() const { return n == 0 || steps == 0 ? 0 : (steps - 1) * stride + n; }

    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "steps", static_cast<double>(steps), 0),
                                detail::below(function, "sequences", static_cast<double>(n), 0),
                                detail::below(function, "stride", static_cast<double>(stride), static_cast<double>(n)));
    }
};

namespace detail {

template <class Layout>
concept strided_in_time = requires(const Layout& layout) {
    layout.steps;
};

// From a walk's position to the array's.
struct contiguous {
    template <class V>
    GRPO_HD cursor<V> operator()(cursor<V> at) const {
        return at;
    }
};
struct every_stride {
    std::int64_t first;
    std::int64_t stride;

    template <class V>
    GRPO_HD cursor<V> operator()(cursor<V> at) const {
        return {first + at.i * stride, at.count};
    }
};

// body.walk(team, row, begin, end, place) for one row. Time-major rows are walked by one lane: their steps do not lie
// side by side.
template <class Layout, class Team, class Body>
GRPO_HD void along(Team& team, const Layout& layout, std::int64_t row, const Body& body) {
    if constexpr (strided_in_time<Layout>) {
        if (!team.leader()) return;
        serial_team alone;
        body.walk(alone, row, std::int64_t{0}, layout.steps, every_stride{row, layout.stride});
    } else {
        body.walk(team, row, layout.begin(row), layout.end(row), contiguous{});
    }
}

// How many entries the rows of a layout have that teams walk together: none where along() gives a row to one lane.
template <class Layout>
GRPO_HD std::int64_t walked_entries(const Layout& layout) {
    return strided_in_time<Layout> ? 0 : layout.extent();
}

// How many active tokens a row has.
template <class Team, class Layout>
GRPO_HD std::int64_t active_tokens(Team& team, const Layout& layout, std::int64_t row) {
    if constexpr (strided_in_time<Layout>) {
        std::int64_t n = 0;
        for (std::int64_t t = 0; t < layout.steps; ++t) {
            n += layout.active(cursor<float>{row + t * layout.stride}) ? 1 : 0;
        }
        return n;
    } else {
        return count_active(team, layout, row);
    }
}

// An element of a backward scan where `use`, and else the identity. Its offset is -0.0, since -0.0 + x is x for every
// x, so a hole leaves no trace: results equal those of the sequence without it, bit by bit (R1.37).
template <class V>
GRPO_HD affine<V> step_or_hole(const mask_t<V>& use, const V& scale, const V& offset) {
    return {math::select<V>(use, scale, V(constant<V>(1))), math::select<V>(use, offset, V(constant<V>(-0.0)))};
}

}  // namespace detail

// Shapes over tokens that recurrences accept.
template <class L>
concept token_layout = shape<L> || detail::strided_in_time<L>;

}  // namespace grpo::inline v0
