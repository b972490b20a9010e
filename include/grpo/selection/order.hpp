// Order statistics over all active tokens of a batch, without a workspace and without sorting: values are compared through
// their bit patterns, some bits per pass, so the answer is exact and the same on every machine.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// What a selection over a batch did. A token with a non-finite input takes no part and is counted; keep masks hold 1 there,
// so that the loss still sees and reports it.
struct selection_result {
    std::int64_t tokens = 0;    // active tokens that took part
    std::int64_t selected = 0;  // those that were picked (by a mask of kept tokens: kept)
    std::int64_t nonfinite = 0;
    std::int64_t first_nonfinite = -1;  // flat index of the first of them
    double threshold = 0;               // the least value picked, or the quantile; 0 where nothing took part
};

namespace detail {

// a < b exactly if order_key(a) < order_key(b); -0 and +0 have the same key.
GRPO_HD std::uint64_t order_key(double x) {
    constexpr std::uint64_t sign = 0x8000000000000000u;
    const std::uint64_t bits = detail::bit_cast<std::uint64_t>(x);
    if (bits == sign) return sign;
    return (bits & sign) != 0 ? ~bits : bits | sign;
}
GRPO_HD double key_value(std::uint64_t key) {
    constexpr std::uint64_t sign = 0x8000000000000000u;
    return detail::bit_cast<double>((key & sign) != 0 ? key & ~sign : ~key);
}

// Where a token stands among those of a batch: by its key, and of equal ones by its index.
struct order_place {
    std::uint64_t key = 0;
    std::uint64_t index = 0;
};

// The digits of places, of the key and then of indices below `extent` (none of them, where extent is 0).
template <int Bits>
struct place_digits {
    static constexpr int bins = 1 << Bits;
    static constexpr int of_key = 64 / Bits;
    int of_index = 0;

    explicit place_digits(std::int64_t extent) {
        for (std::int64_t n = extent; n > 0; n >>= Bits) ++of_index;
    }
    GRPO_HD int count() const { return of_key + of_index; }
    GRPO_HD std::uint64_t last_index() const {
        std::uint64_t last = 0;
        for (int k = 0; k < of_index; ++k) last = last << Bits | (bins - 1u);
        return last;
    }
    GRPO_HD int digit(const order_place& x, int which) const {
        const std::uint64_t word = which < of_key ? x.key : x.index;
        return static_cast<int>(word >> shift(which) & (bins - 1u));
    }
    GRPO_HD void set_digit(order_place& x, int which, int digit) const {
        const std::uint64_t bits = static_cast<std::uint64_t>(digit) << shift(which);
        if (which < of_key) x.key |= bits;
        else x.index |= bits;
    }
    // Of the first `depth` digits alone.
    GRPO_HD bool agree(const order_place& a, const order_place& b, int depth) const {
        if (depth == 0) return true;
        if (depth <= of_key) return (a.key ^ b.key) >> shift(depth - 1) == 0;
        return a.key == b.key && (a.index ^ b.index) >> shift(depth - 1) == 0;
    }
    GRPO_HD bool before(const order_place& a, const order_place& b, int depth) const {
        if (agree(a, b, depth)) return false;
        return a.key < b.key || (a.key == b.key && a.index < b.index);
    }

private:
    GRPO_HD int shift(int which) const { return which < of_key ? 64 - Bits * (which + 1) : Bits * (count() - 1 - which); }
};

// How many values of a row have each digit, and what they add up to (Sums).
template <int Bins, bool Sums>
struct digit_bins {
    template <class>
    struct state {
        std::uint32_t count[Bins] = {};
        double sum[Sums ? Bins : 1] = {};
    };
    template <class State>
    GRPO_HD static void add(State& s, int digit, [[maybe_unused]] double x) {
        if constexpr (Bins > 16) {
            ++s.count[digit];
            if constexpr (Sums) s.sum[digit] += x;
        } else {
            repeat<Bins>([&](int k) { s.count[k] += digit == k ? 1u : 0u; });  // so that they stay in registers
            if constexpr (Sums) repeat<Bins>([&](int k) { s.sum[k] += digit == k ? x : 0.0; });
        }
    }
    template <class State>
    GRPO_HD static void merge(State& a, const State& b) {
        for (int k = 0; k < Bins; ++k) a.count[k] += b.count[k];
        for (int k = 0; k < (Sums ? Bins : 1); ++k) a.sum[k] += b.sum[k];
    }
};
// The same of all rows.
template <int Bins, bool Sums>
struct digit_totals {
    std::int64_t count[Bins] = {};
    double sum[Sums ? Bins : 1] = {};

    template <class Row>
    GRPO_HD void add(const Row& row) {
        for (int k = 0; k < Bins; ++k) count[k] += static_cast<std::int64_t>(row.count[k]);
        for (int k = 0; k < (Sums ? Bins : 1); ++k) sum[k] += row.sum[k];
    }
};

// What is known of the place that is sought.
struct search_state {
    order_place found;
    int depth = 0;          // how many digits of it are known
    std::int64_t here = 0;  // places that agree with these
    std::int64_t rank = 0;  // of what is sought among them, 0 for the first; -1: nothing is sought
    std::int64_t size = 0;  // of the run that comes before them
    double sum = 0;         // and what it adds up to
};

// Into the bin that holds this rank.
template <class Totals>
GRPO_HD int bin_of_rank(search_state& s, const Totals& bins, int last) {
    int bin = 0;
    while (bin < last && bins.count[bin] <= s.rank) s.rank -= bins.count[bin++];
    return bin;
}
// Into the first bin that a run from the least value on, whose mean is below a threshold, does not take whole.
template <class Totals>
GRPO_HD int bin_of_run(search_state& s, const Totals& bins, int last, double threshold) {
    int bin = 0;
    for (; bin < last; ++bin) {
        const std::int64_t n = bins.count[bin];
        if (n > 0 && !((s.sum + bins.sum[bin]) / static_cast<double>(s.size + n) < threshold)) break;
        s.sum += bins.sum[bin];
        s.size += n;
    }
    return bin;
}

}  // namespace detail
}  // namespace grpo::inline v0
