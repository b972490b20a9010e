// One lane, one row after another. The reference for every other executor: same bodies, fixed order, bitwise repeatable;
// masked entries change no bit of any result (R1.13).
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
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
//   lane(), size()                    optional: which of how many lanes, for what each holds of a short row
//   count_nonzero(mask, b, e)         optional: how many entries of a mask are not 0, counted by all lanes together
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

// A scan whose elements all have one scale, x = f(cursor, next) + scale·x: teams that gain from knowing it have a verb. It may ask
// x of single positions too: x takes cursors of any scalar.
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
// A lane's sums of packs are flushed by Monoid::flush(state). Returns the merged Monoid::total, a base of the states.
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
        return team.template combine<Monoid>(static_cast<const typename Monoid::total&>(state));
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

// Executors whose bodies run in another memory than the host's say so by a constant host_memory = false. Entry points then
// touch none of the caller's entries, and ask them for
//   reach(function, argument, p)   what is wrong with a pointer that their bodies are to follow
//   fold<Total>(rows, body, add)   as fold(), with the total in their memory: returns where it will be
//                                  (written once every body is done: they may read what an earlier fold left there)
template <class Exec>
consteval bool host_reads() {
    if constexpr (requires { std::remove_cvref_t<Exec>::host_memory; }) return std::remove_cvref_t<Exec>::host_memory;
    return true;
}
template <class Exec>
inline constexpr bool on_host = host_reads<Exec>();

// A pointer that bodies will follow, and the argument it came from.
struct named_pointer {
    const char* argument;
    const void* data;
};
template <class T>
named_pointer named(const char* argument, const view<T>& data) {
    return {argument, data.data()};
}

// The first of some pointers that the executor's bodies cannot follow; null pointers are no pointers.
template <class Exec, class... Pointers>
problem check_reach([[maybe_unused]] const Exec& exec, [[maybe_unused]] const char* function,
                    const Pointers&... pointers) {
    problem p;
    if constexpr (!on_host<Exec>) {
        ((p || pointers.data == nullptr ? void() : void(p = exec.reach(function, pointers.argument, pointers.data))), ...);
    }
    return p;
}

// An argument with as many entries as wanted, where the executor's bodies can follow it.
template <class Exec, class T>
problem check_array(const Exec& exec, const char* function, const char* argument, const view<T>& x, std::int64_t wanted,
                    const char* of_what) {
    return first_of(wrong_size(function, argument, x.size(), wanted, of_what),
                    null_pointer(function, argument, x.data(), x.size()), check_reach(exec, function, named(argument, x)));
}

// A shape, and for an executor of another memory where its offsets and its mask lie: they are not looked at on the host.
template <class Exec, class Shape>
problem check_shape(const Exec& exec, const char* function, const Shape& layout) {
    if constexpr (!on_host<Exec> && requires { layout.given_extent; }) {
        if (layout.given_extent < 0) {
            return complain(function, "cu_seqlens", "has %lld entries in a device's memory: give ragged() their last as well",
                            static_cast<long long>(layout.cu.size()));
        }
    }
    if (const problem p = layout.validate(function)) return p;
    problem p;
    if constexpr (requires { layout.mask; }) p = check_reach(exec, function, named("mask", layout.mask));
    if constexpr (requires { layout.cu; }) {
        if (!p) p = check_reach(exec, function, named("cu_seqlens", layout.cu));
    }
    return p;
}
// A batch, likewise.
template <class Exec, class Batch>
problem check_batch(const Exec& exec, const char* function, const Batch& b, unsigned used) {
    if constexpr (on_host<Exec>) {
        return b.validate(function, used);
    } else {
        problem p = check_shape(exec, function, b.layout);
        if (!p) p = b.validate(function, used);
        b.each_input(used, [&](const char* argument, const auto& data) {
            if (!p) p = check_reach(exec, function, named(argument, data));
        });
        return p;
    }
}

// Teams of a single lane, for which a body may have a loop of its own, and executors that have such teams.
template <class Team>
concept one_lane = requires { requires Team::leader(); };
template <class Exec>
concept of_single_lanes = one_lane<typename std::remove_cvref_t<Exec>::team>;

// Whether position `first + k` of a row falls to this lane, where lanes take positions in turn.
template <class Team>
GRPO_HD bool falls_to([[maybe_unused]] const Team& team, [[maybe_unused]] std::int64_t k) {
    if constexpr (one_lane<Team>) return true;
    else return k % team.size() == team.lane();
}

// An executor whose totals are its own: for what a function folds on its way, and does not return.
template <class Exec>
decltype(auto) aside(const Exec& exec) {
    if constexpr (requires { exec.aside(); }) return exec.aside();
    else return (exec);
}

// What fold_rows() adds up: totals with an operator+.
struct add_totals {
    template <class Total, class Row>
    GRPO_HD void operator()(Total& all, const Row& row) const {
        all = all + row;
    }
    template <class Total>
    GRPO_HD static void merge(Total& all, const Total& later) {
        all = all + later;
    }
};

// add(total, body(team, row)) over all rows, from Total{} on: the total, or where it will be, if not in the host's memory.
// Add: an empty struct with operator()(total, row), and merge(total, later), the total of later rows.
template <class Total, class Exec, class Body, class Add = add_totals>
auto fold_rows(const Exec& exec, std::int64_t rows, const Body& body, const Add& add = {}) {
    if constexpr (on_host<Exec>) {
        Total total{};
        exec.fold(rows, total, body, add);
        return total;
    } else {
        return exec.template fold<Total>(rows, body, add);
    }
}

// What fold_rows() returns: a total, or where it will be.
template <class Exec, class Total>
using total_of = std::conditional_t<on_host<Exec>, Total, const Total*>;

// The total itself, for a body that was given what fold_rows() returned.
template <class Total>
GRPO_HD const Total& told(const Total& total) {
    return total;
}
template <class Total>
GRPO_HD const Total& told(const Total* total) {
    return *total;
}

// How many active entries a row has, counted by the whole team where that is a verb of it.
template <class Team, class Shape>
GRPO_HD std::int64_t count_active(Team& team, const Shape& layout, std::int64_t row) {
    if constexpr (requires { layout.mask; team.count_nonzero(layout.mask.data(), row, row); }) {
        return team.count_nonzero(layout.mask.data(), layout.begin(row), layout.end(row));
    } else {
        return layout.count_active(row);
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

// For asking whether something takes bodies.
struct no_body {};

}  // namespace detail

struct serial : detail::row_by_row<serial_team> {};

// Whatever walks rows: serial, simd, threads, cuda, nvrtc.
template <class E>
concept executor = requires(const std::remove_cvref_t<E>& exec, std::int64_t rows) { exec.teams(rows, detail::no_body{}); };

}  // namespace grpo::inline v0
