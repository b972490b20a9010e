// 16-bit storage types. Arrays may hold them wherever they may hold float; arithmetic is always in float or double.
// Same layout as c10::BFloat16, __nv_bfloat16, ml_dtypes.bfloat16 and Eigen::bfloat16 (and their halves): a view over such
// memory may be a view of these.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>

namespace grpo::inline v0 {

// The upper half of a float: 8 bits of exponent, 7 of fraction.
struct bfloat16 {
    std::uint16_t bits = 0;

    bfloat16() = default;
    // Rounds to the nearest, ties to even; NaN stays NaN.
    template <class T>
        requires std::is_arithmetic_v<T>
    GRPO_HD explicit bfloat16(T x) {
        const std::uint32_t u = detail::bit_cast<std::uint32_t>(static_cast<float>(x));
        const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
        const std::uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u);
        bits = static_cast<std::uint16_t>(nan ? (u >> 16) | 0x40u : rounded >> 16);
    }
    template <std::floating_point T>
    GRPO_HD explicit operator T() const {
        return static_cast<T>(detail::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
    }
};

// IEEE 754 binary16: 5 bits of exponent, 10 of fraction; greatest finite value 65504.
struct float16 {
    std::uint16_t bits = 0;

    float16() = default;
    template <class T>
        requires std::is_arithmetic_v<T>
    GRPO_HD explicit float16(T x) : bits(pack(detail::bit_cast<std::uint32_t>(static_cast<float>(x)))) {}
    template <std::floating_point T>
    GRPO_HD explicit operator T() const {
        // 2^112 times a float with the half's exponent and fraction is the half's value, subnormals included.
        const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
        const std::uint32_t rest = static_cast<std::uint32_t>(bits & 0x7fffu) << 13;
        if (rest >= 0x0f800000u) {  // infinity or NaN
            return static_cast<T>(detail::bit_cast<float>(sign | 0x7f800000u | (rest & 0x007fffffu)));
        }
        const float magnitude = detail::bit_cast<float>(rest) * 0x1p112f;
        return static_cast<T>(sign != 0 ? -magnitude : magnitude);
    }

private:
    // Rounds to the nearest, ties to even; overflows to infinity.
    GRPO_HD static std::uint16_t pack(std::uint32_t u) {
        const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
        const std::uint32_t a = u & 0x7fffffffu;
        if (a > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
        if (a >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
        if (a < 0x38800000u) {  // subnormal: adding 1/2 leaves the rounded fraction in the low bits
            const float shifted = detail::bit_cast<float>(a) + 0.5f;
            return static_cast<std::uint16_t>(sign | (detail::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
        }
        const std::uint32_t rounded = a - 0x38000000u + 0xfffu + ((a >> 13) & 1u);
        return static_cast<std::uint16_t>(sign | (rounded >> 13));
    }
};

}  // namespace grpo::inline v0
