// The exponential of a softmax for AVX-512: a table of 32 powers of 2^(1/32) held in two registers, a polynomial of degree 2,
// and the exponent added as an integer. Relative error below 1.2e-7 (a sweep is in tests/test_simd_head_softmax.cpp).
//
//   k = round(c x) - 32 M,  c = 32 factor / log 2        M: the reference is 2^M
//   e^(factor x) / 2^M = 2^(k >> 5) · 2^((k & 31) / 32) · (1 + r c1 + r² c2),  r = c x - round(c x)
//
// Exact while |z| is below 2^18 log 2 = 181704: a z above makes its row NaN, one below is as good as -inf.
// The rounding of c scales all logits of a row alike, by less than half a place: factor() tells to what.
#pragma once

#include <grpo/adapt/scalar/xsimd.hpp>

#if defined(__AVX512F__)

#include <cmath>
#include <cstdint>
#include <limits>

#include <grpo/head/exponent.hpp>

namespace grpo::inline v0::detail {

template <class A>
    requires(xsimd::batch<float, A>::size == 16)
class softmax_exponent<xsimd::batch<float, A>> {
    using pack = xsimd::batch<float, A>;
    static constexpr double log2e_32 = 46.166241308446828384;  // 32 / log 2
    static constexpr double log2e = 1.4426950408889634074;
    static constexpr double steps = 32;
    static constexpr double room = 8;    // powers of 2 above the reference that need no other: more would cost entropies a place
    static constexpr double lift = 6;    // of the reference over the row's beginning, whose greatest is not yet the row's
    static constexpr double depth = 127;  // powers of 2 below it, where p becomes exactly 0
    static constexpr double reach = 262144;  // where float still holds whole steps of any x

public:
    static constexpr bool moves_exactly = true;
    static constexpr bool takes_infinities = false;
    using once = double;
    static double log(double sum) { return std::log(sum); }

    GRPO_HD explicit softmax_exponent(double factor)
        : c_(static_cast<float>(factor * log2e_32)),
          low_table_(_mm512_castsi512_ps(_mm512_load_si512(powers.bits))),
          high_table_(_mm512_castsi512_ps(_mm512_load_si512(powers.bits + 16))),
          slope_(static_cast<double>(static_cast<float>(factor * log2e_32))) {
        move(0);
        limit_ = pack(static_cast<float>(-reach * steps / slope_));
    }

    GRPO_HD double factor() const { return slope_ / log2e_32; }
    GRPO_HD double log_reference() const { return reference_ * 0.69314718055994530942; }
    GRPO_HD const pack& limit() const { return limit_; }

    double raise(double top) {
        const bool first = !raised_;
        const double before = reference_;
        raised_ = true;
        set(std::floor(top * factor() * log2e) + lift);
        return first ? 0.0 : std::exp2(before - reference_);
    }
    void expect(double lse) {
        if (lse > lowest) set(std::floor(lse * log2e));
    }

    GRPO_HD static pack greater(const pack& a, const pack& b) { return xsimd::max(a, b); }
    GRPO_HD pack clamped(const pack& x) const { return _mm512_max_ps(lowest_, x); }  // a NaN stays
    static constexpr double unit = 1 / log2e_32;
    GRPO_HD pack relative(const pack& x) const { return _mm512_fmsub_ps(x, c_, reference_steps_); }
    GRPO_HD pack operator()(const pack& x) const {
        const pack k = _mm512_fmadd_ps(x, c_, magic_);
        const pack r = _mm512_fmsub_ps(x, c_, pack(k - magic_));  // one rounding: some xsimd have no fused fms here
        const __m512i index = _mm512_castps_si512(k);
        const __m512i power = _mm512_add_epi32(
            _mm512_castps_si512(_mm512_permutex2var_ps(low_table_, index, high_table_)), _mm512_slli_epi32(index, 18));
        const pack s = _mm512_castsi512_ps(power);
        return _mm512_fmadd_ps(_mm512_fmadd_ps(r, pack(quadratic), pack(linear)), pack(r * s), s);
    }

private:
    // 2^(r/32) - 1 on |r| <= 1/2: minimax for the cubic remainder: relative error 5.4e-8, of mean 0.
    static constexpr float linear = 0.0216611661f;
    static constexpr float quadratic = 0.000234598498f;
    // 2^(j/32), less the j/32 of an exponent that adding k << 18 brings along.
    struct alignas(64) power_table {
        std::int32_t bits[32];

        constexpr power_table() : bits() {
            constexpr float power[32] = {
                1.0f, 1.0218972f, 1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f, 1.13878858f, 1.1637249f,
                1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
                1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f,
                1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f, 1.87416768f, 1.91520655f, 1.95714414f};
            for (int j = 0; j < 32; ++j) bits[j] = __builtin_bit_cast(std::int32_t, power[j]) - (j << 18);
        }
    };
    static constexpr power_table powers{};

    // Beyond 2^17 the reference goes in steps that keep `magic` exact.
    void set(double power) {
        if (!(std::abs(power) < reach)) power = std::numeric_limits<double>::quiet_NaN();
        move(std::abs(power) < 131072.0 ? power : 64.0 * std::floor(power / 64.0));
    }
    void move(double power) {
        reference_ = power;
        magic_ = pack(static_cast<float>(12582912.0 - steps * power));  // 1.5 · 2^23: the integer lies in the low bits
        limit_ = pack(static_cast<float>((power + room) * steps / slope_));
        lowest_ = pack(static_cast<float>((power - depth) * steps / slope_));
        reference_steps_ = pack(static_cast<float>(power * steps));
    }

    pack c_, magic_, limit_, lowest_, reference_steps_, low_table_, high_table_;
    double slope_;
    double reference_ = 0;
    bool raised_ = false;
};

}  // namespace grpo::inline v0::detail

#endif
