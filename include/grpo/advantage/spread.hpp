// What is measured of a group: how many rewards count, their extremes, mean and centred second moment. By one lane over
// any rows, or by a team over one row; the sums are the same bits in every order of the members.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/advantage/normalise.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0::detail {

struct spread {
    std::int64_t n;
    double least;
    double greatest;
    double mean;
    double m2;

    GRPO_HD bool flat() const { return !(least < greatest); }
};

// Which members count: the valid ones, or all of those but one.
template <class Groups>
struct members {
    static constexpr bool all = !requires(const Groups& g) { g.mask; };
    const Groups& groups;

    GRPO_HD bool operator()(std::int64_t i) const { return groups.active(cursor<double>{i}); }
};
template <class Groups>
struct members_but {
    static constexpr bool all = false;
    const Groups& groups;
    std::int64_t skip;

    GRPO_HD bool operator()(std::int64_t i) const { return groups.active(cursor<double>{i}) && i != skip; }
};

constexpr double past_all = 1e308;

// Σ f(i) over a range in four running sums. The f here leave nothing to round, so any order gives the same bits, and
// additions need not wait for each other.
template <class F>
GRPO_HD double exact_sum(std::int64_t begin, std::int64_t end, const F& f) {
    double sum[4] = {};
    std::int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
        double x[4];
        for (int k = 0; k < 4; ++k) x[k] = f(i + k);
        for (int k = 0; k < 4; ++k) sum[k] += x[k];
    }
    for (; i < end; ++i) sum[0] += f(i);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// 16-bit storage has no comparison of its own.
template <class T>
using compared = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

// The extremes of a range without a mask, four lanes side by side.
template <class T>
GRPO_HD void extremes(const T* r, std::int64_t begin, std::int64_t end, double& least, double& greatest) {
    using C = compared<T>;
    if (begin == end) return;
    const C one = static_cast<C>(r[begin]);
    C low[4] = {one, one, one, one};
    C high[4] = {one, one, one, one};
    std::int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
        C x[4];
        for (int k = 0; k < 4; ++k) x[k] = static_cast<C>(r[i + k]);
        for (int k = 0; k < 4; ++k) low[k] = x[k] < low[k] ? x[k] : low[k];
        for (int k = 0; k < 4; ++k) high[k] = high[k] < x[k] ? x[k] : high[k];
    }
    for (; i < end; ++i) {
        const C x = static_cast<C>(r[i]);
        low[0] = x < low[0] ? x : low[0];
        high[0] = high[0] < x ? x : high[0];
    }
    for (int k = 0; k < 4; ++k) {
        least = static_cast<double>(low[k]) < least ? static_cast<double>(low[k]) : least;
        greatest = static_cast<double>(high[k]) > greatest ? static_cast<double>(high[k]) : greatest;
    }
}

// Count and extremes of the rewards of rows [first, last) that count.
template <class Members, class T>
GRPO_HD void find_extent(spread& s, const Members& in, const T* r, std::int64_t first, std::int64_t last) {
    std::int64_t n = 0;
    double least = past_all;
    double greatest = -past_all;
    for (std::int64_t row = first; row < last; ++row) {
        const std::int64_t begin = in.groups.begin(row);
        const std::int64_t end = in.groups.end(row);
        if constexpr (Members::all) {
            n += end - begin;
            extremes(r, begin, end, least, greatest);
        } else {
            for (std::int64_t i = begin; i < end; ++i) {
                if (!in(i)) continue;
                const double x = static_cast<double>(r[i]);
                least = x < least ? x : least;
                greatest = greatest < x ? x : greatest;
                ++n;
            }
        }
    }
    s.n = n;
    s.least = n == 0 ? 0.0 : least;
    s.greatest = n == 0 ? 0.0 : greatest;
}

// What is summed for the mean, and for the squares about it.
struct above_least {
    double least;
    double grid;

    GRPO_HD double operator()(double x) const {
        const double d = x - least;
        return (d + grid) - grid;
    }
};
struct square_about_mean {
    double mean;
    double grid;

    GRPO_HD double operator()(double x) const {
        const double d = x - mean;
        return (d * d + grid) - grid;
    }
};

// The mean, shifted by the least reward. sum(f): Σ f(x) over the rewards that count.
template <class Sum>
GRPO_HD void find_mean(spread& s, const Sum& sum) {
    const double n = static_cast<double>(s.n == 0 ? 1 : s.n);
    s.mean = s.least + sum(above_least{s.least, grid_for(s.greatest - s.least, n)}) / n;
}
// Then the squares about it.
template <class Sum>
GRPO_HD void find_m2(spread& s, const Sum& sum) {
    const double range = s.greatest - s.least;
    s.m2 = sum(square_about_mean{s.mean, grid_for(range * range, static_cast<double>(s.n))});
}

// Sums over rows [first, last), by one lane.
template <class Members, class T>
struct sum_of_rows {
    Members in;
    const T* r;
    std::int64_t first;
    std::int64_t last;

    template <class F>
    GRPO_HD double operator()(const F& f) const {
        double sum = 0;
        for (std::int64_t row = first; row < last; ++row) {
            sum += exact_sum(in.groups.begin(row), in.groups.end(row),
                             [&](std::int64_t i) { return in(i) ? f(static_cast<double>(r[i])) : 0.0; });
        }
        return sum;
    }
};
template <class Members, class T>
sum_of_rows(const Members&, const T*, std::int64_t, std::int64_t) -> sum_of_rows<Members, T>;

// Two passes in double.
template <class Members, class T>
GRPO_HD spread measure(const Members& in, const T* r, std::int64_t first, std::int64_t last) {
    const sum_of_rows sum{in, r, first, last};
    spread s;
    find_extent(s, in, r, first, last);
    find_mean(s, sum);
    find_m2(s, sum);
    return s;
}

// The extremes that a team's lanes have seen; small, since lanes hand it on word by word.
template <class C>
struct ends {
    static constexpr C most = static_cast<C>(sizeof(C) == 4 ? 3.40282346e38 : past_all);

    template <class>
    struct state {
        C least = most;
        C greatest = -most;
    };
    template <class State>
    GRPO_HD static void merge(State& a, const State& b) {
        a.least = b.least < a.least ? b.least : a.least;
        a.greatest = a.greatest < b.greatest ? b.greatest : a.greatest;
    }
    GRPO_HD static void add(state<double>& s, C x) { merge(s, state<double>{x, x}); }
};
struct one_sum {
    template <class>
    struct state {
        double sum = 0;
    };
    template <class State>
    GRPO_HD static void merge(State& a, const State& b) {
        a.sum += b.sum;
    }
};

// Four neighbours, in one access where they lie so.
template <class T>
struct alignas(4 * sizeof(T)) quad {
    T of[4];
    static constexpr bool possible = std::is_arithmetic_v<T> && sizeof(T) == 4;
    GRPO_HD static bool at(const T* p) { return reinterpret_cast<std::uintptr_t>(p) % sizeof(quad) == 0; }
};

// One row of a team: the first entries of each lane, K of them side by side, are held in registers, so that memory is read once
// for groups of a usual size, and in whole quads. What is beyond is dealt out in turn.
template <int K, class Team, class Members, class T>
struct row_in_lanes {
    using C = std::conditional_t<std::is_integral_v<T>, double, compared<T>>;
    static constexpr int at_once = K % 4 == 0 ? 4 : 1;
    Team& team;
    Members in;
    const T* r;
    std::int64_t first;  // of the entries that this lane holds
    std::int64_t end;
    std::int64_t rest;   // the first of its own beyond what lanes hold
    int lanes = 1;
    unsigned counted = 0;
    C x[K];
    double wide[K];  // x, converted once: that is what a device is slow at

    GRPO_HD row_in_lanes(Team& of, const Members& which, const T* reward, std::int64_t row)
        : team(of), in(which), r(reward), first(which.groups.begin(row)), end(which.groups.end(row)), rest(first + K) {
        if constexpr (!one_lane<Team>) {
            lanes = static_cast<int>(team.size());
            rest = first + lanes * K + team.lane();
            first += static_cast<int>(team.lane()) * K;
        }
        repeat<K / at_once>([&](int q) {
            const int k = q * at_once;
            if constexpr (at_once == 4 && Members::all && quad<T>::possible) {
                if (whole(k) && quad<T>::at(r + held(k))) {
                    const auto four = *reinterpret_cast<const quad<T>*>(r + held(k));
                    repeat<4>([&](int j) { x[k + j] = static_cast<C>(four.of[j]); });
                    counted |= 15u << k;
                    return;
                }
            }
            repeat<at_once>([&](int j) {
                const std::int64_t i = held(k + j);
                const bool use = i < end && in(i);
                x[k + j] = use ? static_cast<C>(r[i]) : C(0);
                counted |= use ? 1u << (k + j) : 0u;
            });
        });
        repeat<K>([&](int k) { wide[k] = static_cast<double>(x[k]); });
    }

    GRPO_HD typename ends<C>::template state<double> extent() const {
        typename ends<C>::template state<double> mine;
        each([&](bool counts, C value, double) {
            if (counts) ends<C>::add(mine, value);
        });
        return team.template combine<ends<C>>(mine);
    }
    template <class F>
    GRPO_HD double operator()(const F& f) const {
        one_sum::state<double> mine;
        each([&](bool counts, C, double value) { mine.sum += counts ? f(value) : 0.0; });
        return team.template combine<one_sum>(mine).sum;
    }
    // out[i] = f(i, counts, x as double) for every member, x 0 where it does not count.
    template <class Out, class F>
    GRPO_HD void write(Out* out, const F& f) const {
        if (counted == every) write_held(out, f, [](int) { return true; });
        else write_held(out, f, [&](int k) { return counts(k); });
        beyond([&](std::int64_t i, bool use, C value) { out[i] = static_cast<Out>(f(i, use, static_cast<double>(value))); });
    }

private:
    template <class Out, class F, class Counts>
    GRPO_HD void write_held(Out* out, const F& f, const Counts& use) const {
        repeat<K / at_once>([&](int q) {
            const int k = q * at_once;
            if constexpr (at_once == 4 && quad<Out>::possible) {
                if (whole(k) && quad<Out>::at(out + held(k))) {
                    quad<Out> four;
                    repeat<4>([&](int j) { four.of[j] = static_cast<Out>(f(held(k + j), use(k + j), wide[k + j])); });
                    *reinterpret_cast<quad<Out>*>(out + held(k)) = four;
                    return;
                }
            }
            repeat<at_once>([&](int j) {
                if (held(k + j) < end) out[held(k + j)] = static_cast<Out>(f(held(k + j), use(k + j), wide[k + j]));
            });
        });
    }
    GRPO_HD std::int64_t held(int k) const { return first + k; }
    GRPO_HD bool whole(int k) const { return held(k + 4) <= end; }
    static constexpr unsigned every = (1u << K) - 1;  // as most lanes have it: nothing is asked of each
    GRPO_HD bool counts(int k) const { return (counted >> k & 1u) != 0; }
    // f(counts, x, x as double), where every one that does not count adds nothing.
    template <class F>
    GRPO_HD void each(const F& f) const {
        if (counted == every) {
            repeat<K>([&](int k) { f(true, x[k], wide[k]); });
        } else {
            repeat<K>([&](int k) { f(counts(k), x[k], wide[k]); });
        }
        beyond([&](std::int64_t, bool counts, C value) { f(counts, value, static_cast<double>(value)); });
    }
    template <class F>
    GRPO_HD void beyond(const F& f) const {
        GRPO_ROLLED for (std::int64_t i = rest; i < end; i += lanes) {
            const bool use = in(i);
            f(i, use, use ? static_cast<C>(r[i]) : C(0));
        }
    }
};

// measure() of a team's row of n members that count, the same in every lane.
template <class Row>
GRPO_HD spread measure_together(const Row& row, std::int64_t n) {
    const auto far = row.extent();
    spread s;
    s.n = n;
    s.least = n == 0 ? 0.0 : static_cast<double>(far.least);
    s.greatest = n == 0 ? 0.0 : static_cast<double>(far.greatest);
    find_mean(s, row);
    find_m2(s, row);
    return s;
}

}  // namespace grpo::inline v0::detail
