// Order statistics over all active tokens of a batch, without a workspace and without sorting: values are compared through
// their bit patterns, eight bits per pass, so the answer is exact and the same on every machine.
#pragma once

#include <cstdint>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/objective/batch.hpp>
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
inline std::uint64_t order_key(double x) {
    constexpr std::uint64_t sign = 0x8000000000000000u;
    const std::uint64_t bits = detail::bit_cast<std::uint64_t>(x);
    if (bits == sign) return sign;
    return (bits & sign) != 0 ? ~bits : bits | sign;
}
inline double key_value(std::uint64_t key) {
    constexpr std::uint64_t sign = 0x8000000000000000u;
    return detail::bit_cast<double>((key & sign) != 0 ? key & ~sign : ~key);
}

// Whether a key has the bits that a search has fixed above `shift`.
inline bool in_bin(std::uint64_t key, std::uint64_t found, int shift) { return ((key ^ found) >> shift) >> 8 == 0; }

struct order_statistic {
    double value = 0;
    std::int64_t below = 0;  // values less than it
    std::int64_t equal = 0;  // values equal to it
};

// The value of this rank, 0 for the least. values(visit) calls visit(index, value) for each of them.
template <class Values>
order_statistic nth_value(const Values& values, std::int64_t rank) {
    std::uint64_t found = 0;
    order_statistic s;
    for (int shift = 56; shift >= 0; shift -= 8) {
        std::int64_t bins[256] = {};
        values([&](std::int64_t, double x) {
            const std::uint64_t key = order_key(x);
            if (in_bin(key, found, shift)) ++bins[(key >> shift) & 255u];
        });
        std::uint64_t bin = 0;
        while (bin < 255 && s.below + bins[bin] <= rank) s.below += bins[bin++];
        found |= bin << shift;
        s.equal = bins[bin];
    }
    s.value = key_value(found);
    return s;
}

// The longest ascending run from the least value on whose mean is below a threshold.
struct run_below {
    std::uint64_t end = 0;    // values with a smaller key belong to it
    std::int64_t at_end = 0;  // and so many of those whose key is `end`
    std::int64_t size = 0;
};

template <class Values>
run_below longest_run(const Values& values, double threshold) {
    std::uint64_t found = 0;
    double sum = 0;
    run_below run;
    std::int64_t equal = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        std::int64_t bins[256] = {};
        double sums[256] = {};
        values([&](std::int64_t, double x) {
            const std::uint64_t key = order_key(x);
            if (!in_bin(key, found, shift)) return;
            ++bins[(key >> shift) & 255u];
            sums[(key >> shift) & 255u] += x;
        });
        std::uint64_t bin = 0;
        const auto fits = [&](std::uint64_t k) {
            return bins[k] == 0 || (sum + sums[k]) / static_cast<double>(run.size + bins[k]) < threshold;
        };
        for (; bin < 255 && fits(bin); ++bin) {
            sum += sums[bin];
            run.size += bins[bin];
        }
        found |= bin << shift;
        equal = bins[bin];
    }
    run.end = found;
    while (run.at_end < equal && (sum + key_value(found)) / static_cast<double>(run.size + 1) < threshold) {
        sum += key_value(found);
        ++run.size;
        ++run.at_end;
    }
    return run;
}

// f(i, token, finite) for every active token, in flat order.
template <unsigned Needs, class Batch, class F>
void each_active(const Batch& b, F&& f) {
    using V = typename Batch::compute;
    for (std::int64_t row = 0; row < b.layout.rows(); ++row) {
        token<V> t;
        V of_row = 0;
        b.template read_row<Needs>(row, t, of_row);
        const std::int64_t end = b.layout.end(row);
        for (std::int64_t i = b.layout.begin(row); i < end; ++i) {
            if (!b.layout.active(cursor<V>{i})) continue;
            V probe = of_row;
            b.template read_token<Needs>(cursor<V>{i}, t, probe);
            f(i, t, !is_nonfinite(probe));
        }
    }
}

// Counts what takes part.
template <unsigned Needs, class Batch>
selection_result count_finite(const Batch& b) {
    selection_result r;
    each_active<Needs>(b, [&](std::int64_t i, const auto&, bool finite) {
        r.tokens += finite ? 1 : 0;
        r.nonfinite += finite ? 0 : 1;
        if (!finite && r.first_nonfinite < 0) r.first_nonfinite = i;
    });
    return r;
}

// out = 0 everywhere in the shape's rows, and `value` at active positions.
template <class Shape, class M>
void fill_active(const Shape& layout, view<M> out, int value) {
    for (std::int64_t row = 0; row < layout.rows(); ++row) {
        for (std::int64_t i = layout.begin(row); i < layout.end(row); ++i) {
            out[i] = static_cast<M>(layout.active(cursor<float>{i}) ? value : 0);
        }
    }
}

template <class Shape, class M>
problem validate_mask_output(const char* function, const char* argument, const Shape& layout, view<M> out) {
    return first_of(wrong_size(function, argument, out.size(), layout.extent(), "positions"),
                    null_pointer(function, argument, out.data(), out.size()));
}

inline problem validate_share(const char* function, const char* argument, double x) {
    if (x >= 0 && x <= 1) return {};
    return complain(function, argument, "is %g, but must be between 0 and %g", x, 1.0);
}

}  // namespace detail
}  // namespace grpo::inline v0
