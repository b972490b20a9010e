// The exponential of a softmax on packs of a device (see head/exponent.hpp).
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/pack.cuh>
#include <grpo/fold.hpp>
#include <grpo/head/exponent.hpp>

namespace grpo::inline v0 {
namespace detail {

// The device's own power of 2, of relative error 2^-22, below a reference that moves rarely: p may reach 2^30.
template <int N>
class softmax_exponent<float_pack<N>> {
    using pack = float_pack<N>;
    static constexpr double log2e = 1.4426950408889634074;
    static constexpr float room = 30;
    static constexpr float lowest_power = -1e30f;

public:
    static constexpr bool takes_infinities = true;
    // A team waits for what is computed once a row: in float, except the sums of what is large and small.
    using once = float;
    GRPO_HD static double log(double sum) {
        if (!(sum > 1e-300 && sum < 1e300)) return ::log(sum);
        const auto bits = detail::bit_cast<std::uint64_t>(sum);
        const auto mantissa = detail::bit_cast<double>((bits & 0xfffffffffffffu) | 0x3ff0000000000000u);
        return (static_cast<double>(bits >> 52) - 1023.0) * unit + static_cast<double>(::logf(static_cast<float>(mantissa)));
    }
    static constexpr bool moves_exactly = false;  // p are not kept: the second pass has the logits in a cache

    GRPO_HD explicit softmax_exponent(double factor) : c_(static_cast<float>(factor * log2e)), reference_(0) {
        limit_ = lowest_power / c_;
    }

    GRPO_HD double factor() const { return static_cast<double>(c_) * unit; }
    GRPO_HD double log_reference() const { return static_cast<double>(reference_) * unit; }
    GRPO_HD pack limit() const { return pack(limit_); }

    // Begins with a reference near `x`, an entry of the row that may be anything.
    GRPO_HD void start(double x) {
        const float power = static_cast<float>(x) * c_;
        if (power > -1e6f && power < 1e6f) set(power);
    }
    GRPO_HD double raise(double top) {
        const bool first = limit_ * c_ <= lowest_power * 0.5f;
        const double before = static_cast<double>(reference_);
        set(static_cast<float>(top) * c_);
        return first ? 0.0 : whole_power(static_cast<double>(reference_) - before);
    }
    GRPO_HD void expect(double lse) {
        if (lse > lowest) set(static_cast<float>(lse * log2e));
    }

    // Goes on with a reference that another one had.
    GRPO_HD void resume(double log_reference) { set(::rintf(static_cast<float>(log_reference * log2e))); }

    GRPO_HD static pack greater(const pack& a, const pack& b) {
        return pack::each([&](int k) { return a.v[k] < b.v[k] ? b.v[k] : a.v[k]; });
    }
    GRPO_HD pack clamped(const pack& x) const {
        const float least = (reference_ - 150.0f) / c_;
        return pack::each([&](int k) { return x.v[k] < least ? least : x.v[k]; });  // a NaN stays
    }
    static constexpr double unit = 0.69314718055994530942;
    GRPO_HD pack relative(const pack& x) const {
        return pack::each([&](int k) { return ::fmaf(x.v[k], c_, -reference_); });
    }
    GRPO_HD pack operator()(const pack& x) const {
        return pack::each([&](int k) { return power_of_2(::fmaf(x.v[k], c_, -reference_)); });
    }

private:
    GRPO_HD static float power_of_2(float x) {
#if defined(__CUDA_ARCH__)
        float y;
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
        return y;
#else
        return ::exp2f(x);
#endif
    }
    // 2^-n for a whole n >= 0.
    GRPO_HD static double whole_power(double n) {
        return n < 1000 ? detail::bit_cast<double>((1023 - static_cast<std::int64_t>(n)) << 52) : 0.0;
    }
    GRPO_HD void set(float power) {
        reference_ = ::floorf(power);
        limit_ = (reference_ + room) / c_;
    }

    float c_;
    float reference_;
    float limit_;
};

}  // namespace detail
}  // namespace grpo::inline v0
