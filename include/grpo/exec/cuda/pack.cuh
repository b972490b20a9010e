// Neighbouring floats that one lane of a device computes on, as many as a 16-byte access brings. A scalar like any other (see
// scalar.hpp); its exponential for a softmax: pack_exponent.cuh.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>
#include <grpo/storage.hpp>

namespace grpo::inline v0 {

template <int N>
struct float_pack {
    float v[N];

    struct mask {
        bool b[N];

        template <class F>
        GRPO_HD static mask each(F&& f) {
            mask m;
            for (int k = 0; k < N; ++k) m.b[k] = f(k);
            return m;
        }
        GRPO_HD friend mask operator&(const mask& m, const mask& n) {
            return each([&](int k) { return m.b[k] && n.b[k]; });
        }
        GRPO_HD friend mask operator|(const mask& m, const mask& n) {
            return each([&](int k) { return m.b[k] || n.b[k]; });
        }
        GRPO_HD friend mask operator!(const mask& m) {
            return each([&](int k) { return !m.b[k]; });
        }
        GRPO_HD friend bool any(const mask& m) {
            bool set = false;
            for (int k = 0; k < N; ++k) set = set || m.b[k];
            return set;
        }
    };

    float_pack() = default;
    template <class T>
        requires std::is_arithmetic_v<T>
    GRPO_HD float_pack(T x) {
        for (int k = 0; k < N; ++k) v[k] = static_cast<float>(x);
    }

    template <class F>
    GRPO_HD static float_pack each(F&& f) {
        float_pack r;
        for (int k = 0; k < N; ++k) r.v[k] = f(k);
        return r;
    }
    GRPO_HD friend float_pack operator+(const float_pack& a, const float_pack& b) {
        return each([&](int k) { return a.v[k] + b.v[k]; });
    }
    GRPO_HD friend float_pack operator-(const float_pack& a, const float_pack& b) {
        return each([&](int k) { return a.v[k] - b.v[k]; });
    }
    GRPO_HD friend float_pack operator*(const float_pack& a, const float_pack& b) {
        return each([&](int k) { return a.v[k] * b.v[k]; });
    }
    GRPO_HD friend float_pack operator/(const float_pack& a, const float_pack& b) {
        return each([&](int k) { return a.v[k] / b.v[k]; });
    }
    GRPO_HD friend float_pack operator-(const float_pack& a) {
        return each([&](int k) { return -a.v[k]; });
    }
    GRPO_HD friend mask operator<(const float_pack& a, const float_pack& b) {
        return mask::each([&](int k) { return a.v[k] < b.v[k]; });
    }
    GRPO_HD friend mask operator<=(const float_pack& a, const float_pack& b) {
        return mask::each([&](int k) { return a.v[k] <= b.v[k]; });
    }
    GRPO_HD friend float_pack abs(const float_pack& a) {
        return each([&](int k) { return ::fabsf(a.v[k]); });
    }
    GRPO_HD friend float_pack log(const float_pack& a) {
        return each([&](int k) { return ::logf(a.v[k]); });
    }
    GRPO_HD friend float_pack log1p(const float_pack& a) {
        return each([&](int k) { return ::log1pf(a.v[k]); });
    }
    GRPO_HD friend float_pack sqrt(const float_pack& a) {
        return each([&](int k) { return ::sqrtf(a.v[k]); });
    }
};

namespace detail {

// What one access brings.
template <int Words>
struct alignas(4 * Words) access {
    std::uint32_t word[Words];
};
using sixteen_bytes = access<4>;  // eight neighbours of 16-bit storage, or four floats

template <int Bytes>
GRPO_HD bool in_one_access(const void* p) {
    return reinterpret_cast<std::uintptr_t>(p) % Bytes == 0;
}
// Writes past the first-level cache, which keeps what is small and read again.
GRPO_HD void write(void* p, const sixteen_bytes& x) {
#if defined(__CUDA_ARCH__)
    asm volatile("st.global.L1::no_allocate.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(x.word[0]), "r"(x.word[1]),
                 "r"(x.word[2]), "r"(x.word[3])
                 : "memory");
#else
    *static_cast<sixteen_bytes*>(p) = x;
#endif
}
template <int Words>
GRPO_HD void write(void* p, const access<Words>& x) {
    *static_cast<access<Words>*>(p) = x;
}

GRPO_HD float upper_half(std::uint32_t word) { return detail::bit_cast<float>(word & 0xffff0000u); }
GRPO_HD float lower_half(std::uint32_t word) { return detail::bit_cast<float>(word << 16); }

// Two floats as neighbouring bfloat16, a in the lower half.
GRPO_HD std::uint32_t two_bfloat16(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
#else
    return static_cast<std::uint32_t>(bfloat16(a).bits) | static_cast<std::uint32_t>(bfloat16(b).bits) << 16;
#endif
}

}  // namespace detail

template <int N>
struct scalar_traits<float_pack<N>> {
    using pack = float_pack<N>;
    using constant = pack;
    using mask = typename pack::mask;
    using element = float;
    static constexpr int lanes = N;

    GRPO_HD static pack value(const pack& x) { return x; }
    GRPO_HD static pack chain(const pack& v, const pack&, const pack&) { return v; }
    GRPO_HD static pack select(const mask& m, const pack& a, const pack& b) {
        return pack::each([&](int k) { return m.b[k] ? a.v[k] : b.v[k]; });
    }
    GRPO_HD static pack fma(const pack& a, const pack& b, const pack& c) {
        return pack::each([&](int k) { return ::fmaf(a.v[k], b.v[k], c.v[k]); });
    }
    GRPO_HD static pack exp(const pack& x) {
        return pack::each([&](int k) { return ::expf(x.v[k]); });
    }
    GRPO_HD static pack expm1(const pack& x) {
        return pack::each([&](int k) { return ::expm1f(x.v[k]); });
    }
    // e^x - 1 - x without a branch: x = n log 2 + r, e^r - 1 = q, and e^x - 1 = 2^n q + (2^n - 1). Near 0, where n is 0, the
    // remainder is that of r = x. Halved, since 2^128 has no float.
    GRPO_HD static math::exp_parts<pack> exp_split(const pack& x) {
        pack remainder, expm1;
        for (int k = 0; k < N; ++k) split(x.v[k], bounded(x.v[k]), remainder.v[k], expm1.v[k]);
        return {remainder, expm1};
    }
    GRPO_HD static math::exp_parts<pack> exp_split_inside(const pack& x) {
        pack remainder, expm1;
        for (int k = 0; k < N; ++k) split(x.v[k], x.v[k], remainder.v[k], expm1.v[k]);
        return {remainder, expm1};
    }
    // Added up in pairs, then to the total of a lane in double.
    template <class A>
    GRPO_HD static void add_where(A& total, const mask& m, const pack& x) {
        const pack those = pack::each([&](int k) { return m.b[k] ? x.v[k] : 0.0f; });
        if constexpr (std::is_same_v<A, pack>) total = total + those;
        else total = total + static_cast<A>(sum(those));
    }
    GRPO_HD static mask nonfinite(const pack& x) {
        return mask::each([&](int k) { return detail::is_nonfinite(x.v[k]); });
    }
    GRPO_HD static float sum(const pack& x) {
        pack t = x;
        for (int half = N / 2; half > 0; half /= 2) {
            for (int k = 0; k < half; ++k) t.v[k] += t.v[k + half];
        }
        return t.v[0];
    }
    GRPO_HD static float maximum(const pack& x) {
        float m = x.v[0];
        for (int k = 1; k < N; ++k) m = m < x.v[k] ? x.v[k] : m;
        return m;
    }
    GRPO_HD static mask first(int count) {
        return mask::each([&](int k) { return k < count; });
    }
    GRPO_HD static int first_lane(const mask& m) {
        int k = 0;
        while (k + 1 < N && !m.b[k]) ++k;
        return k;
    }

    // Entries beyond `count` are not touched; their lanes are 0.
    template <class U>
    GRPO_HD static pack load(const U* p, int count) {
        if (count == N && aligned(p)) {
            if constexpr (std::is_same_v<U, float> && N % 4 == 0) return of_floats(p);
            if constexpr (sizeof(U) == 2) return of_halves(p);
        }
        pack r;
        for (int k = 0; k < N; ++k) r.v[k] = k < count ? static_cast<float>(p[k]) : 0.0f;
        return r;
    }
    template <class U>
    GRPO_HD static void store(U* p, const pack& x, int count) {
        if (count == N && aligned(p)) return store_whole(p, x);
        for (int k = 0; k < N; ++k) {
            if (k < count) p[k] = static_cast<U>(x.v[k]);
        }
    }
    // All entries, p aligned.
    template <class U>
    GRPO_HD static void store_whole(U* p, const pack& x) {
        if constexpr (std::is_same_v<U, float> && N % 4 == 0) to_floats(p, x);
        else if constexpr (sizeof(U) == 2) to_halves(p, x);
        else if constexpr (sizeof(U) == 1 && N % 4 == 0) to_bytes(p, x);
        else for (int k = 0; k < N; ++k) p[k] = static_cast<U>(x.v[k]);
    }
    template <class M>
    GRPO_HD static mask marked(const M* p, int count) {
        if constexpr (sizeof(M) == 1 && N == 4) {
            if (count == N && detail::in_one_access<4>(p)) {
                const std::uint32_t four = reinterpret_cast<const detail::access<1>*>(p)->word[0];
                return mask::each([&](int k) { return (four >> (8 * k) & 0xffu) != 0; });
            }
        }
        return mask::each([&](int k) { return k < count && p[k] != M(0); });
    }

private:
    // For accesses to all entries: by 16 bytes, or what they take together in smaller storage.
    template <class U>
    GRPO_HD static bool aligned(const U* p) {
        return detail::in_one_access<sizeof(U) <= 2 ? static_cast<int>(sizeof(U)) * N : 16>(p);
    }
    // Where e^x still changes; a NaN stays.
    GRPO_HD static float bounded(float x) { return x < -110.0f ? -110.0f : x > 89.0f ? 89.0f : x; }
    GRPO_HD static void split(float given, float x, float& remainder, float& expm1) {
        constexpr float to_whole = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number, which its bits end with
        const float shifted = ::fmaf(x, 1.44269504f, to_whole);
        const float n = shifted - to_whole;
        const float r = detail::exp_rest(x, n);
        const float tail = detail::exp_tail_over_square(r) * (r * r);
        // 2^(n-1), for n from -125 on: what is less vanishes beside 1/2.
        const std::int32_t whole = detail::bit_cast<std::int32_t>(shifted) - 0x4b400000;
        const float half = detail::bit_cast<float>(static_cast<std::uint32_t>((whole < -125 ? -125 : whole) + 126) << 23);
        const float y = ::fmaf(half, tail + r, half - 0.5f);
        expm1 = y + y;
        remainder = n == 0.0f ? tail : expm1 - given;
    }
    GRPO_HD static pack of_floats(const float* p) {
        pack r;
        for (int k = 0; k < N; k += 4) {
            const auto four = *reinterpret_cast<const detail::sixteen_bytes*>(p + k);
            for (int j = 0; j < 4; ++j) r.v[k + j] = detail::bit_cast<float>(four.word[j]);
        }
        return r;
    }
    GRPO_HD static void to_floats(float* p, const pack& x) {
        for (int k = 0; k < N; k += 4) {
            detail::sixteen_bytes four;
            for (int j = 0; j < 4; ++j) four.word[j] = detail::bit_cast<std::uint32_t>(x.v[k + j]);
            detail::write(p + k, four);
        }
    }
    template <class U>
    GRPO_HD static pack of_halves(const U* p) {
        const auto all = *reinterpret_cast<const detail::access<N / 2>*>(p);
        pack r;
        for (int j = 0; j < N / 2; ++j) {
            if constexpr (std::is_same_v<U, bfloat16>) {
                r.v[2 * j] = detail::lower_half(all.word[j]);
                r.v[2 * j + 1] = detail::upper_half(all.word[j]);
            } else {
                U low, high;
                low.bits = static_cast<std::uint16_t>(all.word[j]);
                high.bits = static_cast<std::uint16_t>(all.word[j] >> 16);
                r.v[2 * j] = static_cast<float>(low);
                r.v[2 * j + 1] = static_cast<float>(high);
            }
        }
        return r;
    }
    template <class U>
    GRPO_HD static void to_halves(U* p, const pack& x) {
        detail::access<N / 2> all;
        for (int j = 0; j < N / 2; ++j) {
            if constexpr (std::is_same_v<U, bfloat16>) {
                all.word[j] = detail::two_bfloat16(x.v[2 * j], x.v[2 * j + 1]);
            } else {
                all.word[j] = static_cast<std::uint32_t>(U(x.v[2 * j]).bits) |
                                static_cast<std::uint32_t>(U(x.v[2 * j + 1]).bits) << 16;
            }
        }
        detail::write(p, all);
    }
    template <class U>
    GRPO_HD static void to_bytes(U* p, const pack& x) {
        detail::access<N / 4> all;
        for (int j = 0; j < N / 4; ++j) {
            all.word[j] = 0;
            for (int k = 0; k < 4; ++k) {
                all.word[j] |= std::uint32_t{static_cast<std::uint8_t>(static_cast<U>(x.v[4 * j + k]))} << (8 * k);
            }
        }
        detail::write(p, all);
    }
};

namespace detail {

// Positions [begin, end) in packs of V that begin at multiples of their width, as arrays do in memory; the first and the last
// are what is left. A loop over them has its body's text once, which sweep() has three times: terms are large.
template <class V>
struct dealt_packs {
    static constexpr std::int64_t width = scalar_traits<V>::lanes;
    std::int64_t begin;
    std::int64_t end;
    std::int64_t start;  // of the first

    GRPO_HD dealt_packs(std::int64_t first, std::int64_t last) : begin(first), end(last), start(first - first % width) {}
    // The pack that starts at i.
    GRPO_HD cursor<V> at(std::int64_t i) const {
        if constexpr (width == 1) return {i};
        const std::int64_t low = i < begin ? begin : i;
        const std::int64_t high = end - i < width ? end : i + width;
        return {low, static_cast<int>(high - low)};
    }
};

}  // namespace detail
}  // namespace grpo::inline v0
