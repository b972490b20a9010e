// What every normalisation shares: where eps goes, the divisor that follows, and order-independent sums.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// The divisor made of a standard deviation s and eps. A centred value of exactly 0 stays 0 in all of them, and where
// the divisor would be 0 (s = 0 and eps = 0) the centred value stays undivided, so nothing here is ever inf or NaN.
enum class eps_placement {
    outside,         // s + eps: TRL, verl, OpenRLHF, slime, AReaL, tunix, torchtune
    inside,          // sqrt(s² + eps): whitening in verl, TRL, NeMo RL, slime, tunix
    floor,           // max(s, eps): OpenRLHF's whitening with eps 1e-4, as rsqrt(max(s², 1e-8))
    where_positive,  // s + eps if s > 0, else undivided: NeMo RL
    none,            // undivided
};

namespace detail {

// 1 over the divisor, for variance s².
GRPO_HD double normalising_factor(double variance, double eps, eps_placement placement) {
    const double s = ::sqrt(placement == eps_placement::inside ? variance + eps : variance);
    double divisor = 1.0;
    switch (placement) {
        case eps_placement::outside:
            divisor = s + eps;
            break;
        case eps_placement::inside:
            divisor = s;
            break;
        case eps_placement::floor:
            divisor = s < eps ? eps : s;
            break;
        case eps_placement::where_positive:
            divisor = s > 0 ? s + eps : 1.0;
            break;
        case eps_placement::none:
            break;
    }
    return divisor > 0 ? 1.0 / divisor : 1.0;
}

GRPO_HD double variance_of(double m2, double n, int ddof) {
    const double divisor = n - static_cast<double>(ddof);
    return divisor > 0 ? m2 / divisor : 0.0;
}

// A constant M with the property that (x + M) - M rounds x, |x| <= bound, to a grid so coarse that n of them add up
// without any rounding: the sum is then the same in every order (R1.10). What is rounded away is at most n·bound·2^-51
// per element. (Under -ffast-math the compiler may drop the rounding; the sum is then an ordinary one.)
GRPO_HD double grid_for(double bound, double n) {
    const std::uint64_t exponent = detail::bit_cast<std::uint64_t>(bound * n) & 0x7ff0000000000000u;
    return detail::bit_cast<double>(exponent) * 6.0;
}

// Sizes and null pointers of one argument.
template <class T>
problem wants(const char* function, const char* argument, const view<T>& data, std::int64_t size, const char* of_what) {
    if (const problem p = wrong_size(function, argument, data.size(), size, of_what)) return p;
    return null_pointer(function, argument, data.data(), data.size());
}
template <class T>
problem may_have(const char* function, const char* argument, const view<T>& data, std::int64_t size,
                 const char* of_what) {
    return data.data() == nullptr ? problem{} : wants(function, argument, data, size, of_what);
}

// Whether the exponent bits are all set: they then carry into the sign's place. Flat and without branches, so that it
// runs on vectors.
inline bool all_finite(const float* x, std::int64_t n) {
    std::uint32_t bad = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        bad |= (detail::bit_cast<std::uint32_t>(x[i]) & 0x7f800000u) + 0x00800000u;
    }
    return (bad & 0x80000000u) == 0;
}
template <class T>
bool all_finite(const T* x, std::int64_t n) {
    bool bad = false;
    for (std::int64_t i = 0; i < n; ++i) bad = bad | is_nonfinite(static_cast<double>(x[i]));
    return !bad;
}

// An active entry that is not finite, by index.
template <class Shape, class T>
problem not_finite(const char* function, const char* argument, const Shape& shape, const T* x) {
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        for (std::int64_t i = shape.begin(row); i < shape.end(row); ++i) {
            if (!shape.active(cursor<double>{i}) || !is_nonfinite(static_cast<double>(x[i]))) continue;
            return complain(function, argument,
                            "has the value %g at index %lld; leave out what cannot be scored with where(valid)",
                            static_cast<double>(x[i]), static_cast<long long>(i));
        }
    }
    return {};
}

template <class T>
using plain = std::remove_cvref_t<T>;

// Arithmetic of token recurrences: double as soon as one array is double, else float.
template <class... Arrays>
using compute_of = std::conditional_t<(std::is_same_v<plain<Arrays>, double> || ...), double, float>;

}  // namespace detail
}  // namespace grpo::inline v0
