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
template <class Members, class T>
struct above_least {
    Members in;
    const T* r;
    double least;
    double grid;

    GRPO_HD double operator()(std::int64_t i) const {
        const double d = in(i) ? static_cast<double>(r[i]) - least : 0.0;
        return (d + grid) - grid;
    }
};
template <class Members, class T>
struct square_about_mean {
    Members in;
    const T* r;
    double mean;
    double grid;

    GRPO_HD double operator()(std::int64_t i) const {
        const double d = in(i) ? static_cast<double>(r[i]) - mean : 0.0;
        return (d * d + grid) - grid;
    }
};

// The mean, shifted by the least reward, of what `sum` adds up.
template <class Members, class T, class Sum>
GRPO_HD void find_mean(spread& s, const Members& in, const T* r, const Sum& sum) {
    const double n = static_cast<double>(s.n == 0 ? 1 : s.n);
    s.mean = s.least + sum(above_least<Members, T>{in, r, s.least, grid_for(s.greatest - s.least, n)}) / n;
}
// Then the squares about it.
template <class Members, class T, class Sum>
GRPO_HD void find_m2(spread& s, const Members& in, const T* r, const Sum& sum) {
    const double range = s.greatest - s.least;
    s.m2 = sum(square_about_mean<Members, T>{in, r, s.mean, grid_for(range * range, static_cast<double>(s.n))});
}

// Σ f over rows [first, last), by one lane.
template <class Groups>
struct sum_of_rows {
    const Groups& groups;
    std::int64_t first;
    std::int64_t last;

    template <class F>
    GRPO_HD double operator()(const F& f) const {
        double sum = 0;
        for (std::int64_t row = first; row < last; ++row) sum += exact_sum(groups.begin(row), groups.end(row), f);
        return sum;
    }
};
template <class Groups>
sum_of_rows(const Groups&, std::int64_t, std::int64_t) -> sum_of_rows<Groups>;

// Two passes in double.
template <class Members, class T>
GRPO_HD spread measure(const Members& in, const T* r, std::int64_t first, std::int64_t last) {
    const sum_of_rows sum{in.groups, first, last};
    spread s;
    find_extent(s, in, r, first, last);
    find_mean(s, in, r, sum);
    find_m2(s, in, r, sum);
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

// Σ f over one row, by all lanes of a team.
template <class Team>
struct sum_of_team {
    Team& team;
    std::int64_t begin;
    std::int64_t end;

    template <class F>
    GRPO_HD double operator()(const F& f) const {
        return team
            .template fold<one_sum, double>(begin, end, [&](auto& state, cursor<double> at) { state.sum += f(at.i); })
            .sum;
    }
};
template <class Team>
sum_of_team(Team&, std::int64_t, std::int64_t) -> sum_of_team<Team>;

// measure() of one row, the same in every lane.
template <class Team, class Members, class T>
GRPO_HD spread measure_together(Team& team, const Members& in, const T* r, std::int64_t row) {
    using C = std::conditional_t<std::is_integral_v<T>, double, compared<T>>;
    using extent = ends<C>;
    const std::int64_t begin = in.groups.begin(row);
    const std::int64_t end = in.groups.end(row);
    spread s;
    s.n = Members::all ? end - begin : count_active(team, in.groups, row);
    const auto far = team.template fold<extent, double>(begin, end, [&](auto& state, cursor<double> at) {
        if (!in(at.i)) return;
        const C x = static_cast<C>(r[at.i]);
        extent::merge(state, std::remove_reference_t<decltype(state)>{x, x});
    });
    s.least = s.n == 0 ? 0.0 : static_cast<double>(far.least);
    s.greatest = s.n == 0 ? 0.0 : static_cast<double>(far.greatest);
    const sum_of_team sum{team, begin, end};
    find_mean(s, in, r, sum);
    find_m2(s, in, r, sum);
    return s;
}

}  // namespace grpo::inline v0::detail
