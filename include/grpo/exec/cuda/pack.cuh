// Neighbouring floats that one lane of a device computes on: what a 16-byte access brings of 16-bit storage. A scalar like
// any other (see scalar.hpp), and its exponential for a softmax.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/head/exponent.hpp>
#include <grpo/scalar.hpp>
#include <grpo/storage.hpp>

namespace grpo::inline v0 {

template <int N>
struct float_pack {
    float v[N];

    struct mask {
        bool b[N];
        GRPO_HD friend bool any(const mask& m) {
            bool set = false;
            for (int k = 0; k < N; ++k) set = set || m.b[k];
            return set;
        }
    };

    float_pack() = default;
    GRPO_HD explicit float_pack(float x) {
        for (int k = 0; k < N; ++k) v[k] = x;
    }
    GRPO_HD explicit float_pack(double x) : float_pack(static_cast<float>(x)) {}

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
        mask m;
        for (int k = 0; k < N; ++k) m.b[k] = a.v[k] < b.v[k];
        return m;
    }
    GRPO_HD friend mask operator<=(const float_pack& a, const float_pack& b) {
        mask m;
        for (int k = 0; k < N; ++k) m.b[k] = a.v[k] <= b.v[k];
        return m;
    }
};

namespace detail {

// Eight neighbours of 16-bit storage, or four floats, in one access.
struct alignas(16) sixteen_bytes {
    std::uint32_t word[4];
};
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

GRPO_HD bool in_one_access(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

GRPO_HD float upper_half(std::uint32_t word) { return __builtin_bit_cast(float, word & 0xffff0000u); }
GRPO_HD float lower_half(std::uint32_t word) { return __builtin_bit_cast(float, word << 16); }

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
        mask m;
        for (int k = 0; k < N; ++k) m.b[k] = k < count;
        return m;
    }
    GRPO_HD static int first_lane(const mask& m) {
        int k = 0;
        while (k + 1 < N && !m.b[k]) ++k;
        return k;
    }

    // Entries beyond `count` are not touched; their lanes are 0.
    template <class U>
    GRPO_HD static pack load(const U* p, int count) {
        if (count == N && detail::in_one_access(p)) {
            if constexpr (std::is_same_v<U, float> && N % 4 == 0) return of_floats(p);
            if constexpr (sizeof(U) == 2 && N == 8) return of_halves(p);
        }
        pack r;
        for (int k = 0; k < N; ++k) r.v[k] = k < count ? static_cast<float>(p[k]) : 0.0f;
        return r;
    }
    template <class U>
    GRPO_HD static void store(U* p, const pack& x, int count) {
        if (count == N && detail::in_one_access(p)) return store_whole(p, x);
        for (int k = 0; k < N; ++k) {
            if (k < count) p[k] = static_cast<U>(x.v[k]);
        }
    }
    // All entries, p a multiple of 16 bytes.
    template <class U>
    GRPO_HD static void store_whole(U* p, const pack& x) {
        if constexpr (std::is_same_v<U, float> && N % 4 == 0) to_floats(p, x);
        else if constexpr (sizeof(U) == 2 && N == 8) to_halves(p, x);
        else each([&](int k) { return static_cast<float>(p[k] = static_cast<U>(x.v[k])); });
    }
    template <class M>
    GRPO_HD static mask marked(const M* p, int count) {
        mask m;
        for (int k = 0; k < N; ++k) m.b[k] = k < count && p[k] != M(0);
        return m;
    }

private:
    GRPO_HD static pack of_floats(const float* p) {
        pack r;
        for (int k = 0; k < N; k += 4) {
            const auto four = *reinterpret_cast<const detail::sixteen_bytes*>(p + k);
            for (int j = 0; j < 4; ++j) r.v[k + j] = __builtin_bit_cast(float, four.word[j]);
        }
        return r;
    }
    GRPO_HD static void to_floats(float* p, const pack& x) {
        for (int k = 0; k < N; k += 4) {
            detail::sixteen_bytes four;
            for (int j = 0; j < 4; ++j) four.word[j] = __builtin_bit_cast(std::uint32_t, x.v[k + j]);
            detail::write(p + k, four);
        }
    }
    template <class U>
    GRPO_HD static pack of_halves(const U* p) {
        const auto eight = *reinterpret_cast<const detail::sixteen_bytes*>(p);
        pack r;
        for (int j = 0; j < 4; ++j) {
            if constexpr (std::is_same_v<U, bfloat16>) {
                r.v[2 * j] = detail::lower_half(eight.word[j]);
                r.v[2 * j + 1] = detail::upper_half(eight.word[j]);
            } else {
                U low, high;
                low.bits = static_cast<std::uint16_t>(eight.word[j]);
                high.bits = static_cast<std::uint16_t>(eight.word[j] >> 16);
                r.v[2 * j] = static_cast<float>(low);
                r.v[2 * j + 1] = static_cast<float>(high);
            }
        }
        return r;
    }
    template <class U>
    GRPO_HD static void to_halves(U* p, const pack& x) {
        detail::sixteen_bytes eight;
        for (int j = 0; j < 4; ++j) {
            if constexpr (std::is_same_v<U, bfloat16>) {
                eight.word[j] = detail::two_bfloat16(x.v[2 * j], x.v[2 * j + 1]);
            } else {
                eight.word[j] = static_cast<std::uint32_t>(U(x.v[2 * j]).bits) |
                                static_cast<std::uint32_t>(U(x.v[2 * j + 1]).bits) << 16;
            }
        }
        detail::write(p, eight);
    }
};

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
        const auto bits = __builtin_bit_cast(std::uint64_t, sum);
        const auto mantissa = __builtin_bit_cast(double, (bits & 0xfffffffffffffu) | 0x3ff0000000000000u);
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
        return n < 1000 ? __builtin_bit_cast(double, (1023 - static_cast<std::int64_t>(n)) << 52) : 0.0;
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
