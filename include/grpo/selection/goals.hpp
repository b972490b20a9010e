// What is sought among the tokens of a batch, and picked once it is found: see search.hpp.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/selection/order.hpp>

namespace grpo::inline v0::detail {

// What the first pass finds.
struct token_counts {
    std::int64_t tokens = 0;  // finite ones
    std::int64_t nonfinite = 0;
    std::int64_t first_nonfinite = -1;
    double advantage = 0;  // sums over the finite ones
    double logp = 0;

    GRPO_HD friend token_counts operator+(const token_counts& a, const token_counts& b) {
        return {a.tokens + b.tokens, a.nonfinite + b.nonfinite, a.first_nonfinite < 0 ? b.first_nonfinite : a.first_nonfinite,
                a.advantage + b.advantage, a.logp + b.logp};
    }
};

// What passes have found so far.
struct search_known {
    token_counts counts;
    search_state search;
    extrema::state<double> beyond;  // of the values above the one that was found
};
// Goals say which place is sought, and what is picked once it is found:
//   sums, exact                         whether a search adds values up; whether it goes on to the last digit of a value
//   rank(counts, candidates)            of what is sought
//   bin(search, totals, last)           where the search goes on
//   place(digits, x, i)                 where a token stands
//   picks(known, digits, place, x)
//   threshold(known, range)             what is told of the picked values; joined(a, b) of two rows'

// The greatest of the values, a share of all tokens but at least one; of equal ones those with the lower index.
struct greatest_share {
    static constexpr bool sums = false;
    static constexpr bool exact = false;
    double fraction;

    GRPO_HD std::int64_t rank(const token_counts& counts, std::int64_t candidates) const {
        const auto k = static_cast<std::int64_t>(fraction * static_cast<double>(counts.tokens));
        const std::int64_t wanted = k < 1 ? 1 : k;
        return (wanted < candidates ? wanted : candidates) - 1;
    }
    template <class Totals>
    GRPO_HD int bin(search_state& s, const Totals& bins, int last) const {
        return bin_of_rank(s, bins, last);
    }
    template <class Digits>
    GRPO_HD order_place place(const Digits&, double x, std::int64_t i) const {
        return {~order_key(x), static_cast<std::uint64_t>(i)};
    }
    template <class Digits>
    GRPO_HD bool picks(const search_known& known, const Digits& digits, const order_place& place, double) const {
        const search_state& s = known.search;
        return s.rank >= 0 && !digits.before(s.found, place, s.depth);
    }
    GRPO_HD double threshold(const search_known&, const extrema::state<double>& range) const { return range.least; }
    GRPO_HD static double joined(double a, double b) { return a < b ? a : b; }
};

// The longest run from the least value on whose mean is below a threshold, or the least value alone; of equal ones those with
// the greater index.
struct longest_run_below {
    static constexpr bool sums = true;
    static constexpr bool exact = false;
    double limit;

    GRPO_HD std::int64_t rank(const token_counts&, std::int64_t) const { return 0; }
    template <class Totals>
    GRPO_HD int bin(search_state& s, const Totals& bins, int last) const {
        return bin_of_run(s, bins, last, limit);
    }
    template <class Digits>
    GRPO_HD order_place place(const Digits& digits, double x, std::int64_t i) const {
        return {order_key(x), digits.last_index() - static_cast<std::uint64_t>(i)};
    }
    template <class Digits>
    GRPO_HD bool picks(const search_known& known, const Digits& digits, const order_place& place, double x) const {
        const search_state& s = known.search;
        if (!digits.agree(place, s.found, s.depth)) return digits.before(place, s.found, s.depth);
        return s.size == 0 || (s.sum + x) / static_cast<double>(s.size + 1) < limit;
    }
    GRPO_HD double threshold(const search_known&, const extrema::state<double>& range) const { return range.greatest; }
    GRPO_HD static double joined(double a, double b) { return a < b ? b : a; }
};

// Values from the (1 - share)-quantile on, interpolated linearly between order statistics.
struct from_quantile {
    static constexpr bool sums = false;
    static constexpr bool exact = true;
    double share;

    GRPO_HD double position(const token_counts& counts) const { return (1.0 - share) * static_cast<double>(counts.tokens - 1); }
    GRPO_HD std::int64_t rank(const token_counts& counts, std::int64_t) const {
        return static_cast<std::int64_t>(position(counts));
    }
    template <class Totals>
    GRPO_HD int bin(search_state& s, const Totals& bins, int last) const {
        return bin_of_rank(s, bins, last);
    }
    template <class Digits>
    GRPO_HD order_place place(const Digits&, double x, std::int64_t) const {
        return {order_key(x), 0};
    }
    template <class Digits>
    GRPO_HD bool picks(const search_known& known, const Digits&, const order_place&, double x) const {
        return threshold(known, {}) <= x;
    }
    GRPO_HD double threshold(const search_known& known, const extrema::state<double>&) const {
        const search_state& s = known.search;
        const double low = key_value(s.found.key);
        const bool next_is_equal = s.rank + 1 < s.here || known.beyond.n == 0;
        const double high = next_is_equal ? low : known.beyond.least;
        const double at = position(known.counts);
        const double between = low + (at - static_cast<double>(static_cast<std::int64_t>(at))) * (high - low);
        return between < high ? between : high;
    }
    GRPO_HD static double joined(double a, double) { return a; }
};

}  // namespace grpo::inline v0::detail
