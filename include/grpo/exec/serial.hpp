// One lane, one row after another. The reference for every other executor: same bodies, fixed order, bitwise repeatable;
// masked entries change no bit of any result (R1.13).
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// A team is who walks one row. Bodies are executed by every lane of it and use only
//   vector<T>                         what one lane computes on: T itself, or a pack of T
//   fold<Monoid, V>(b, e, f)          f(state, cursor) for every position; the merged state, the same in every lane
//   each<V>(b, e, f)                  f(cursor) for every position
//   scan<V>(b, e, f, g)               from the last position to the first: x = f(cursor)(x), then g(cursor, x)
//   leader()                          true in exactly one lane
struct serial_team {
    template <class T>
    using vector = T;

    GRPO_HD static constexpr bool leader() { return true; }

    template <class Monoid, class V, class F>
    GRPO_HD auto fold(std::int64_t begin, std::int64_t end, F&& f) const {
        typename Monoid::template state<double> state;
        for (std::int64_t i = begin; i < end; ++i) f(state, cursor<V>{i});
        return state;
    }

    template <class V, class F>
    GRPO_HD void each(std::int64_t begin, std::int64_t end, F&& f) const {
        for (std::int64_t i = begin; i < end; ++i) f(cursor<V>{i});
    }

    template <class V, class F, class G>
    GRPO_HD void scan(std::int64_t begin, std::int64_t end, F&& f, G&& g) const {
        V x{};
        for (std::int64_t i = end; i-- > begin;) {
            x = f(cursor<V>{i})(x);
            g(cursor<V>{i}, x);
        }
    }
};

struct serial {
    // body(team, row) for every row.
    template <class Body>
    void teams(std::int64_t rows, const Body& body) const {
        serial_team team;
        for (std::int64_t row = 0; row < rows; ++row) body(team, row);
    }

    // add(total, body(team, row)) in the order of the rows.
    template <class Total, class Body, class Add>
    void fold(std::int64_t rows, Total& total, const Body& body, Add&& add) const {
        serial_team team;
        for (std::int64_t row = 0; row < rows; ++row) add(total, body(team, row));
    }
};

}  // namespace grpo::inline v0
