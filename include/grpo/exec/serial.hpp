// One lane, one row after another. The reference for every other executor: same bodies, fixed order, bitwise repeatable;
// masked entries change no bit of any result (R1.13).
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// What a scan remembers of a position for the positions before it: its value, where `kept`.
template <class V>
struct kept_value {
    V value;
    mask_t<V> kept;
};

// A team is who walks one row. Bodies are executed by every lane of it and use only
//   vector<T>                         what one lane computes on: T itself, or a pack of T
//   fold<Monoid, V>(b, e, f)          f(state, cursor) for every position; the merged state, the same in every lane
//   fold<Monoid, V>(b, e, active, skipped, f)   f(state, cursor, mask) where any lane of mask = active(cursor) is set,
//                                     skipped(cursor) where none is
//   each<V>(b, e, f)                  f(cursor) for every position
//   scan<V>(b, e, f, g)               from the last position to the first: x = f(cursor)(x), then g(cursor, x)
//   scan<V>(b, e, x, f, g)            the same, with f(cursor, next): next is the value of the nearest later position
//                                     that x(cursor), a kept_value, keeps; 0 beyond the last
//   combine<Monoid>(state)            the lanes' states merged, the same in every lane
//   leader()                          true in exactly one lane
//   worker                            which of the executor's size() teams it is: for memory of its own
// and, if it gains from them, verbs for rows far longer than a cache: see detail::stream and detail::sweep
struct serial_team {
    int worker = 0;

    template <class T>
    using vector = T;

    GRPO_HD static constexpr bool leader() { return true; }

    template <class Monoid, class V, class F>
    GRPO_HD auto fold(std::int64_t begin, std::int64_t end, F&& f) const {
        typename Monoid::template state<double> state;
        for (std::int64_t i = begin; i < end; ++i) f(state, cursor<V>{i});
        return state;
    }

    template <class Monoid, class V, class Active, class Skipped, class F>
    GRPO_HD auto fold(std::int64_t begin, std::int64_t end, Active&& active, Skipped&& skipped, F&& f) const {
        typename Monoid::template state<double> state;
        std::int64_t i = begin;
        while (i < end) {
            // Neighbouring active positions in a loop of their own, tested at its end: then its body always runs, and
            // compilers compute before it what does not change in it.
            if (active(cursor<V>{i})) {
                do {
                    f(state, cursor<V>{i}, true);
                    ++i;
                } while (i < end && active(cursor<V>{i}));
            } else {
                skipped(cursor<V>{i});
                ++i;
            }
        }
        return state;
    }

    template <class Monoid, class State>
    GRPO_HD static State combine(const State& state) {
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

    template <class V, class X, class F, class G>
    GRPO_HD void scan(std::int64_t begin, std::int64_t end, X&& x, F&& f, G&& g) const {
        V carry{};
        V next{};
        for (std::int64_t i = end; i-- > begin;) {
            const kept_value<V> here = x(cursor<V>{i});
            carry = f(cursor<V>{i}, next)(carry);
            if (here.kept) next = here.value;
            g(cursor<V>{i}, carry);
        }
    }
};

namespace detail {

// A scan whose elements all have one scale, x = f(cursor, next) + scale·x: teams that gain from knowing it have a verb.
template <class V, class Team, class X, class F, class G>
GRPO_HD void scan_uniform(Team& team, std::int64_t begin, std::int64_t end, const V& scale, X&& x, F&& f, G&& g) {
    if constexpr (requires { team.template scan_uniform<V>(begin, end, scale, x, f, g); }) {
        team.template scan_uniform<V>(begin, end, scale, x, f, g);
    } else {
        team.template scan<V>(
            begin, end, x, [&](cursor<V> at, const V& next) { return affine<V>{scale, f(at, next)}; }, g);
    }
}

// The positions that a lane has visited before the present one, in stream().
template <class V, class Team>
struct earlier_positions {
    const Team& team;
    std::int64_t begin;
    std::int64_t i;

    template <class F>
    GRPO_HD void each(F&& f) const {
        team.template each<V>(begin, i, f);
    }
};

// Positions [begin, end), of which the first `head` come before the first whole line of memory.
struct span {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::int64_t head = 0;
};
// The span of entries [begin, end) of p, for packs of V.
template <class V, class T>
GRPO_HD span span_of(const T* p, std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t lanes = scalar_traits<V>::lanes;
    if constexpr (lanes == 1) {
        return {begin, end, 0};
    } else {
        const auto over = reinterpret_cast<std::uintptr_t>(p + begin) / sizeof(T) % static_cast<std::uintptr_t>(lanes);
        const std::int64_t head = (lanes - static_cast<std::int64_t>(over)) % lanes;
        return {begin, end, head < end - begin ? head : end - begin};
    }
}

// Folds a long row in one read and, in between, does something for every position of a span that is still in the cache:
//   F::segments             how many parts of the row a team on packs should read at once
//   f(state, at, earlier)   at: an array of cursors, as many as the team likes; earlier.each(g): those visited so far
//   g(cursor)               for every position of `other`
// A lane's sums of packs are flushed by Monoid::flush(state). Returns the merged state.
template <class Monoid, class V, class Team, class F, class G>
GRPO_HD auto stream(Team& team, const span& row, F&& f, const span& other, G&& g) {
    if constexpr (requires { team.template stream<Monoid, V>(row, f, other, g); }) {
        return team.template stream<Monoid, V>(row, f, other, g);
    } else {
        team.template each<V>(other.begin, other.end, g);
        typename Monoid::template state<V> state;
        team.template each<V>(row.begin, row.end, [&](cursor<V> at) {
            const cursor<V> here[1] = {at};
            f(state, here, earlier_positions<V, Team>{team, row.begin, at.i});
        });
        Monoid::flush(state);
        return team.template combine<Monoid>(state);
    }
}
template <class Monoid, class V, class Team, class F>
GRPO_HD auto stream(Team& team, const span& row, F&& f) {
    return stream<Monoid, V>(team, row, f, {}, [](const auto&) {});
}

// each(), for a row far longer than a cache; F as above.
template <class V, class Team, class F>
GRPO_HD void sweep(Team& team, const span& row, F&& f) {
    if constexpr (requires { team.template sweep<V>(row, f); }) {
        team.template sweep<V>(row, f);
    } else {
        team.template each<V>(row.begin, row.end, f);
    }
}

// An executor that walks the rows in order with one team.
template <class Team>
struct row_by_row {
    using team = Team;

    static constexpr int size() { return 1; }

    // body(team, row) for every row.
    template <class Body>
    void teams(std::int64_t rows, const Body& body) const {
        Team walker;
        for (std::int64_t row = 0; row < rows; ++row) body(walker, row);
    }

    // add(total, body(team, row)) in the order of the rows.
    template <class Total, class Body, class Add>
    void fold(std::int64_t rows, Total& total, const Body& body, Add&& add) const {
        Team walker;
        for (std::int64_t row = 0; row < rows; ++row) add(total, body(walker, row));
    }
};

}  // namespace detail

struct serial : detail::row_by_row<serial_team> {};

}  // namespace grpo::inline v0
