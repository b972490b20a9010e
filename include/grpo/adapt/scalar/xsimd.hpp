// xsimd::batch as a scalar: the same formulas on a pack of lanes. Width and instruction set are those the including file
// is compiled for (-march=...); nothing is dispatched at run time. xsimd 8 to 13.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// GCC 12 warns about its own AVX-512 intrinsics, which start from an undefined register on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <grpo/adapt/scalar/xsimd_storage.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

namespace detail {

// Generators of constant lane indices for swizzle.
template <int Shift>
struct later_lane {
    static constexpr std::size_t get(std::size_t i, std::size_t n) {
        return i + static_cast<std::size_t>(Shift) < n ? i + static_cast<std::size_t>(Shift) : n - 1;
    }
};

struct first_lane_only {
    static constexpr std::size_t get(std::size_t, std::size_t) { return 0; }
};

template <class T>
using lane_index_t = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

// Lane k becomes lane k + Shift; the last lanes are unspecified.
template <int Shift, class T, class A>
GRPO_HD xsimd::batch<T, A> shift_lanes(const xsimd::batch<T, A>& x) {
    using index = xsimd::batch<lane_index_t<T>, A>;
    if constexpr (requires { xsimd::make_batch_constant<index, later_lane<Shift>>(); }) {
        return xsimd::swizzle(x, xsimd::make_batch_constant<index, later_lane<Shift>>());
    } else {
        alignas(64) T lanes[2 * xsimd::batch<T, A>::size] = {};
        x.store_aligned(lanes);
        return xsimd::batch<T, A>::load_unaligned(lanes + Shift);
    }
}

// Every lane becomes lane 0, without a way through memory: a scan waits for it between packs.
template <class T, class A>
GRPO_HD xsimd::batch<T, A> broadcast_first(const xsimd::batch<T, A>& x) {
    using index = xsimd::batch<lane_index_t<T>, A>;
    if constexpr (requires { xsimd::make_batch_constant<index, first_lane_only>(); }) {
        return xsimd::swizzle(x, xsimd::make_batch_constant<index, first_lane_only>());
    } else {
        return xsimd::batch<T, A>(x.get(0));
    }
}

// e^x = 2^n (1 + q), n = round(x / log 2), q = e^r - 1 for the rest |r| <= log(2) / 2.
template <class A>
struct float_exp {
    using pack = xsimd::batch<float, A>;
    using ints = xsimd::batch<std::int32_t, A>;
    pack n;
    pack tail;  // q - r
    pack q;

    GRPO_HD explicit float_exp(const pack& x) {
        n = xsimd::nearbyint(x * pack(1.44269504f));
        const pack r = exp_rest(x, n);
        tail = exp_tail_over_square(r) * (r * r);
        q = tail + r;
    }

    // x · 2^n; 0 or infinite long before |n| = 254.
    GRPO_HD static pack scale(const pack& x, const pack& n) {
#if defined(__AVX512F__)
        if constexpr (pack::size == 16) return _mm512_scalef_ps(x, n);
#endif
        const ints whole = xsimd::to_int(n);
        const ints half = whole >> 1;
        return x * power(half) * power(whole - half);
    }
    // 2^n for |n| <= 126.
    GRPO_HD static pack power(const pack& n) {
#if defined(__AVX512F__)
        if constexpr (pack::size == 16) return _mm512_scalef_ps(pack(1.0f), n);
#endif
        return power(xsimd::to_int(n));
    }

    // Where the result still changes: e^89 is +inf, e^-110 is 0. NaN stays NaN.
    GRPO_HD static pack guarded(const pack& x) { return xsimd::max(pack(-110.0f), xsimd::min(pack(89.0f), x)); }

    // e^x - 1 = 2 (2^(n-1) (1 + q) - 1/2): halved, so that 2^n of n = 128 does not overflow before a negative q takes from
    // it.
    GRPO_HD pack minus_one() const {
        const pack half = scale(pack(0.5f), n);
        const pack y = xsimd::fma(half, q, pack(half - pack(0.5f)));
        return y + y;
    }

private:
    GRPO_HD static pack power(const ints& n) { return xsimd::bitwise_cast<pack>((n + ints(127)) << 23); }
};

}  // namespace detail

template <class T, class A>
struct scalar_traits<xsimd::batch<T, A>> {
    using pack = xsimd::batch<T, A>;
    using constant = pack;
    using mask = xsimd::batch_bool<T, A>;
    using element = T;
    static constexpr int lanes = static_cast<int>(pack::size);
    // A mask is one bit per lane (AVX-512), or a pack of all-ones and zeros.
    static constexpr bool mask_is_bits = requires(unsigned bits) { static_cast<typename mask::register_type>(bits); };

    GRPO_HD static pack value(const pack& x) { return x; }
    GRPO_HD static pack chain(const pack& v, const pack&, const pack&) { return v; }
    GRPO_HD static pack select(const mask& m, const pack& a, const pack& b) { return xsimd::select(m, a, b); }

    GRPO_HD static pack fma(const pack& a, const pack& b, const pack& c) { return xsimd::fma(a, b, c); }
    GRPO_HD static pack clamp(const pack& x, const pack& low, const pack& high) {
        return xsimd::max(low, xsimd::min(high, x));
    }
    // Within 1.5 units in the last place in float.
    GRPO_HD static pack exp(const pack& x) {
        if constexpr (std::is_same_v<T, float>) {
            const detail::float_exp<A> e(detail::float_exp<A>::guarded(x));
            return detail::float_exp<A>::scale(pack(1.0f) + e.q, e.n);
        } else {
            return xsimd::exp(x);
        }
    }
    GRPO_HD static pack exp_inside(const pack& x) {
        if constexpr (std::is_same_v<T, float>) {
            const detail::float_exp<A> e(x);
            const pack s = detail::float_exp<A>::power(e.n);
            return xsimd::fma(s, e.q, s);
        } else {
            return xsimd::exp(x);
        }
    }
    GRPO_HD static pack expm1(const pack& x) {
        if constexpr (std::is_same_v<T, float>) {
            return detail::float_exp<A>(detail::float_exp<A>::guarded(x)).minus_one();
        } else {
            return xsimd::expm1(x);
        }
    }

    // e^x - 1 - x from the same reduction: where n = 0 it is the polynomial itself, so nothing cancels.
    GRPO_HD static math::exp_parts<pack> exp_split(const pack& x) {
        if constexpr (std::is_same_v<T, float>) {
            const detail::float_exp<A> e(detail::float_exp<A>::guarded(x));
            return parts(e, e.minus_one(), x);
        } else {
            return lane_by_lane(x);
        }
    }
    GRPO_HD static math::exp_parts<pack> exp_split_inside(const pack& x) {
        if constexpr (std::is_same_v<T, float>) {
            const detail::float_exp<A> e(x);
            const pack s = detail::float_exp<A>::power(e.n);
            return parts(e, xsimd::fma(s, e.q, pack(s - pack(1.0f))), x);
        } else {
            return lane_by_lane(x);
        }
    }

    GRPO_HD static void add_where(pack& total, const mask& m, const pack& x) {
#if defined(__AVX512F__)
        if constexpr (pack::size == 16 && sizeof(T) == 4) {
            total = _mm512_mask_add_ps(total, m, total, x);
            return;
        }
        if constexpr (pack::size == 8 && sizeof(T) == 8) {
            total = _mm512_mask_add_pd(total, m, total, x);
            return;
        }
#endif
        total = total + xsimd::select(m, x, pack(T(0)));
    }

    GRPO_HD static T sum(const pack& x) {
        if constexpr (requires { reduce_add(x); }) {
            return reduce_add(x);
        } else {
            return hadd(x);
        }
    }
    static T maximum(const pack& x) {
        alignas(64) T buffer[pack::size];
        x.store_aligned(buffer);
        T m = buffer[0];
        for (std::size_t k = 1; k < pack::size; ++k) m = m < buffer[k] ? buffer[k] : m;
        return m;
    }

    // The first `count` lanes.
    GRPO_HD static mask first(int count) {
        if constexpr (mask_is_bits) {
            return mask(static_cast<typename mask::register_type>((1u << count) - 1u));
        } else {
            return iota() < pack(static_cast<T>(count));
        }
    }
    static int first_lane(const mask& m) {
        if constexpr (mask_is_bits) {
            return __builtin_ctz(static_cast<unsigned>(static_cast<typename mask::register_type>(m)));
        } else {
            return first_of_flags(m);
        }
    }

    // Entries beyond `count` are not touched; their lanes are 0.
    template <class U>
    GRPO_HD static pack load(const U* p, int count) {
        if constexpr (std::is_same_v<U, T>) {
            if (count == lanes) return pack::load_unaligned(p);
        }
        if constexpr (detail::storage_pack<U, pack>::exists) {
            if (count == lanes) return detail::storage_pack<U, pack>::load(p);
        }
#if defined(__AVX512F__)
        if constexpr (std::is_same_v<U, float> && std::is_same_v<T, double> && pack::size == 8) {
            if (count == lanes) return pack(_mm512_cvtps_pd(_mm256_loadu_ps(p)));
        }
#elif defined(__AVX__)
        if constexpr (std::is_same_v<U, float> && std::is_same_v<T, double> && pack::size == 4) {
            if (count == lanes) return pack(_mm256_cvtps_pd(_mm_loadu_ps(p)));
        }
#endif
        alignas(64) T buffer[pack::size] = {};
        for (int k = 0; k < count; ++k) buffer[k] = static_cast<T>(p[k]);
        return pack::load_aligned(buffer);
    }
    template <class U>
    GRPO_HD static void store(U* p, const pack& x, int count) {
        if constexpr (std::is_same_v<U, T>) {
            if (count == lanes) return x.store_unaligned(p);
        }
        if constexpr (detail::storage_pack<U, pack>::exists) {
            if (count == lanes) return detail::storage_pack<U, pack>::store(p, x);
        }
#if defined(__AVX512F__)
        if constexpr (std::is_same_v<U, float> && std::is_same_v<T, double> && pack::size == 8) {
            if (count == lanes) return _mm256_storeu_ps(p, _mm512_cvtpd_ps(x));
        }
#elif defined(__AVX__)
        if constexpr (std::is_same_v<U, float> && std::is_same_v<T, double> && pack::size == 4) {
            if (count == lanes) return _mm_storeu_ps(p, _mm256_cvtpd_ps(x));
        }
#endif
        alignas(64) T buffer[pack::size];
        x.store_aligned(buffer);
        for (int k = 0; k < count; ++k) p[k] = static_cast<U>(buffer[k]);
    }
#if defined(__AVX512F__)
    // Whole lines go to memory without being read first.
    template <class U>
        requires(std::is_same_v<U, T> && sizeof(T) * pack::size == 64)
    GRPO_HD static void store_past_cache(U* p, const pack& x, int count) {
        if (count < lanes || reinterpret_cast<std::uintptr_t>(p) % 64 != 0) return store(p, x, count);
        _mm512_stream_si512(reinterpret_cast<__m512i*>(p), __builtin_bit_cast(__m512i, x));
    }
    GRPO_HD static void finish_stores() { _mm_sfence(); }
#endif
    // Lanes whose mask entry is not 0; false beyond `count`.
    template <class M>
    GRPO_HD static mask marked(const M* p, int count) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
        if constexpr (sizeof(M) == 1 && pack::size == 16) {
            if (count == lanes) {
                const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
                return mask(_mm_test_epi8_mask(bytes, bytes));
            }
        }
        if constexpr (sizeof(M) == 1 && pack::size == 8 && sizeof(T) == 8) {
            if (count == lanes) {
                const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
                return mask(static_cast<__mmask8>(_mm_test_epi8_mask(bytes, bytes)));
            }
        }
#elif defined(__AVX2__)
        if constexpr (sizeof(M) == 1 && pack::size == 8 && sizeof(T) == 4) {
            if (count == lanes) {
                const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
                const __m256i wide = _mm256_cvtepu8_epi32(bytes);
                return mask(_mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256())));
            }
        }
#endif
        alignas(64) T buffer[pack::size] = {};
        for (int k = 0; k < count; ++k) buffer[k] = p[k] != M(0) ? T(1) : T(0);
        return pack(T(0)) < pack::load_aligned(buffer);
    }
    // By bit pattern: exponent all ones.
    GRPO_HD static mask nonfinite(const pack& x) {
#if defined(__AVX512DQ__)
        if constexpr (pack::size == 16 && sizeof(T) == 4) return mask(_mm512_fpclass_ps_mask(x, 0x99));
#endif
        using bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
        constexpr bits exponent = sizeof(T) == 4 ? bits(0x7f800000) : static_cast<bits>(0x7ff0000000000000);
        using ints = xsimd::batch<bits, A>;
        const auto all_ones = (xsimd::bitwise_cast<ints>(x) & ints(exponent)) == ints(exponent);
        using int_register = typename xsimd::batch_bool<bits, A>::register_type;
        if constexpr (requires { mask(static_cast<int_register>(all_ones)); }) {
            return mask(static_cast<int_register>(all_ones));
        } else {
            const ints one = xsimd::bitwise_cast<ints>(pack(T(1)));
            return pack(T(0)) < xsimd::bitwise_cast<pack>(xsimd::select(all_ones, one, ints(bits(0))));
        }
    }

private:
    GRPO_HD static math::exp_parts<pack> parts(const detail::float_exp<A>& e, const pack& expm1, const pack& x) {
        return {xsimd::select(e.n == pack(0.0f), e.tail, pack(expm1 - x)), expm1};
    }
    // Kept out of the loops it is called from: only non-finite tokens come here.
    [[gnu::noinline, gnu::cold]] static int first_of_flags(const mask& m) {
        bool set[pack::size];
        m.store_unaligned(set);
        int k = 0;
        while (k + 1 < lanes && !set[k]) ++k;
        return k;
    }
    static math::exp_parts<pack> lane_by_lane(const pack& x) {
        alignas(64) T in[pack::size], remainder[pack::size], em[pack::size];
        x.store_aligned(in);
        for (std::size_t k = 0; k < pack::size; ++k) {
            const math::exp_parts<T> one = math::exp_split(in[k]);
            remainder[k] = one.remainder;
            em[k] = one.expm1;
        }
        return {pack::load_aligned(remainder), pack::load_aligned(em)};
    }
    static pack iota() {
        alignas(64) T index[pack::size];
        for (std::size_t k = 0; k < pack::size; ++k) index[k] = static_cast<T>(k);
        return pack::load_aligned(index);
    }
};

}  // namespace grpo::inline v0
