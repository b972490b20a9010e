// What the machine can do, measured in the same run and over the same memory as the case beside which it stands: bytes
// a second of reading, updating in place, copying past the cache and filling, and floating-point operations a second
// from registers. Portable code where no wider instructions are compiled in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <grpo/exec/threads.hpp>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "clock.hpp"

namespace bench {

inline constexpr std::int64_t line_bytes = 64;

// ---- one cache line -------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
struct line {
    __m512i a;
    static line load(const char* p) { return {_mm512_load_si512(p)}; }
    static line zero() { return {_mm512_setzero_si512()}; }
    void mix(const line& o) { a = _mm512_xor_si512(a, o.a); }
    void store(char* p) const { _mm512_store_si512(p, a); }
    void stream(char* p) const { _mm512_stream_si512(reinterpret_cast<__m512i*>(p), a); }
};
#elif defined(__AVX2__)
struct line {
    __m256i a, b;
    static const __m256i* half(const char* p, int k) { return reinterpret_cast<const __m256i*>(p) + k; }
    static __m256i* half(char* p, int k) { return reinterpret_cast<__m256i*>(p) + k; }
    static line load(const char* p) { return {_mm256_load_si256(half(p, 0)), _mm256_load_si256(half(p, 1))}; }
    static line zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    void mix(const line& o) { a = _mm256_xor_si256(a, o.a), b = _mm256_xor_si256(b, o.b); }
    void store(char* p) const { _mm256_store_si256(half(p, 0), a), _mm256_store_si256(half(p, 1), b); }
    void stream(char* p) const { _mm256_stream_si256(half(p, 0), a), _mm256_stream_si256(half(p, 1), b); }
};
#else
struct line {
    std::uint64_t a[8];
    static line load(const char* p) {
        line x;
        __builtin_memcpy(x.a, p, sizeof x.a);
        return x;
    }
    static line zero() { return {}; }
    void mix(const line& o) {
        for (int k = 0; k < 8; ++k) a[k] ^= o.a[k];
    }
    void store(char* p) const { __builtin_memcpy(p, a, sizeof a); }
    void stream(char* p) const { store(p); }
};
#endif

/// Streaming stores are weakly ordered: a pass over memory ends when they have arrived.
inline void arrived() {
#if defined(__AVX2__) || defined(__AVX512F__)
    _mm_sfence();
#endif
}

// ---- passes over memory ---------------------------------------------------------------------------------------

/// op(k, at) for every line of [begin, end), walked as so many runs side by side; `k` is the run.
template <int Runs, bool Ahead, class Op>
void walk(std::int64_t begin, std::int64_t end, const char* prefetched, Op&& op) {
    constexpr std::int64_t distance = (Runs == 1 ? 16 : 8) * line_bytes;
    const std::int64_t run = (end - begin) / line_bytes / Runs * line_bytes;
    for (std::int64_t i = begin; i < begin + run; i += line_bytes) {
#pragma GCC unroll 8
        for (int k = 0; k < Runs; ++k) {
            const std::int64_t at = i + k * run;
            if constexpr (Ahead) __builtin_prefetch(prefetched + at + distance);
            op(k, at);
        }
    }
    for (std::int64_t at = begin + Runs * run; at < end; at += line_bytes) op(0, at);
}

enum class pass { read, update, copy, fill };

template <int Runs, bool Ahead>
void go_over(pass kind, const char* from, char* to, std::int64_t begin, std::int64_t end) {
    line zero = line::zero();
    asm volatile("" : "+m"(zero));  // a zero that the compiler does not know
    if (kind == pass::read) {
        line sum[Runs];
        for (line& s : sum) s = zero;
        walk<Runs, Ahead>(begin, end, from, [&](int k, std::int64_t at) { sum[k].mix(line::load(from + at)); });
        for (int k = 1; k < Runs; ++k) sum[0].mix(sum[k]);
        asm volatile("" : : "m"(sum[0]));
    } else if (kind == pass::update) {
        walk<Runs, Ahead>(begin, end, from, [&](int, std::int64_t at) {
            line x = line::load(to + at);
            x.mix(zero);
            x.store(to + at);
        });
    } else if (kind == pass::copy) {
        walk<Runs, Ahead>(begin, end, from, [&](int, std::int64_t at) { line::load(from + at).stream(to + at); });
    } else {
        walk<Runs, false>(begin, end, from, [&](int, std::int64_t at) { zero.stream(to + at); });
    }
    arrived();
}

/// Memory of a whole number of lines, cut in halves for two threads and so on.
struct memory {
    const char* from = nullptr;
    char* to = nullptr;  // copy: another buffer; otherwise the same
    std::int64_t bytes = 0;
};

/// Runs f(k) on every one of `threads` threads.
template <class F>
void on_all(int threads, const F& f) {
    if (threads == 1) return f(0);
    static grpo::thread_pool pool(threads);
    pool.run(f);
}

inline timebase clock_of(int threads) {
    return threads == 1 ? timebase::thread : timebase::wall;
}

/// Seconds of the quickest of three passes.
template <int Runs, bool Ahead>
double seconds_of(pass kind, const memory& m, int threads) {
    const std::int64_t lines = m.bytes / line_bytes;
    double best = 1e30;
    for (int round = 0; round < 3; ++round) {
        const double start = now(clock_of(threads));
        on_all(threads, [&](int k) {
            go_over<Runs, Ahead>(kind, m.from, m.to, lines * k / threads * line_bytes,
                                 lines * (k + 1) / threads * line_bytes);
        });
        best = std::min(best, now(clock_of(threads)) - start);
    }
    return best;
}

/// Bytes moved a second (an update and a copy move each byte twice), by the best of 1, 4 and 8 runs side by side, with
/// and without prefetching. The content of what is updated stays; fill writes zeros into `to`, copy what is in `from`.
inline double bandwidth(pass kind, const memory& m, int threads) {
    const double seconds = std::min({seconds_of<1, false>(kind, m, threads), seconds_of<1, true>(kind, m, threads),
                                     seconds_of<4, false>(kind, m, threads), seconds_of<4, true>(kind, m, threads),
                                     seconds_of<8, false>(kind, m, threads), seconds_of<8, true>(kind, m, threads)});
    const double moved = static_cast<double>(m.bytes) * (kind == pass::update || kind == pass::copy ? 2 : 1);
    return moved / seconds;
}

struct bandwidths {
    double read = 0, update = 0, copy = 0, fill = 0;
};

/// Over the memory of a case and another of the same size, which is overwritten.
inline bandwidths bandwidths_of(char* data, char* other, std::int64_t bytes, int threads) {
    bytes -= bytes % line_bytes;
    return {bandwidth(pass::read, {data, data, bytes}, threads), bandwidth(pass::update, {data, data, bytes}, threads),
            bandwidth(pass::copy, {data, other, bytes}, threads),
            bandwidth(pass::fill, {other, other, bytes}, threads)};
}

// ---- arithmetic -----------------------------------------------------------------------------------------------

/// Operations a second of step() called over and over on every thread, `operations` each.
template <class Step>
double rate_of(const Step& step, double operations, int threads) {
    constexpr int calls = 2'000'000;
    double best = 0;
    for (int round = 0; round < 9; ++round) {
        const double start = now(clock_of(threads));
        on_all(threads, [&](int) { step(calls); });
        best = std::max(best, calls * operations * threads / (now(clock_of(threads)) - start));
    }
    return best;
}

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif
using floats = float __attribute__((vector_size(vector_bytes)));

/// Keeps a chain of dependent operations in a register, and apart from its neighbours.
template <class V>
void in_register(V& x) {
#if defined(__AVX512F__)
    asm volatile("" : "+v"(x));
#elif defined(__x86_64__)
    asm volatile("" : "+x"(x));
#elif defined(__aarch64__)
    asm volatile("" : "+w"(x));
#else
    asm volatile("" : "+m"(x));
#endif
}

inline constexpr int chains = 12;

/// next(x) on 12 chains, `calls` times each. Twelve names: g++ keeps an array in memory.
template <class V, class F>
void run_chains(int calls, const V& zero, const F& next) {
    V a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero, i = zero, j = zero, k = zero,
      l = zero;
    const auto step = [&](auto&... x) { ((x = next(x), in_register(x)), ...); };
    for (int n = 0; n < calls; ++n) step(a, b, c, d, e, f, g, h, i, j, k, l);
}

/// Single-precision multiply-adds.
inline double f32_peak(int threads) {
    const auto step = [](int calls) {
        floats scale = floats{} + 0.999f, shift = floats{} + 1e-3f;
        in_register(scale);
        in_register(shift);
        run_chains(calls, floats{}, [&](const floats& x) { return x * scale + shift; });
    };
    return rate_of(step, chains * 2.0 * vector_bytes / 4, threads);
}

/// bf16 dot products accumulated in f32 by vdpbf16ps; 0 where it is not compiled in.
inline double bf16_dot_peak([[maybe_unused]] int threads) {
#if defined(__AVX512BF16__)
    const auto step = [](int calls) {
        __m512i ones = _mm512_set1_epi16(0x3f80);
        in_register(ones);
        const __m512bh a = (__m512bh)ones;
        run_chains(calls, _mm512_setzero_ps(), [&](const __m512& x) { return _mm512_dpbf16_ps(x, a, a); });
    };
    return rate_of(step, chains * 64.0, threads);
#else
    return 0;
#endif
}

/// bf16 tiles on four accumulators; 0 where it is not compiled in or the kernel refuses it.
inline double amx_peak([[maybe_unused]] int threads) {
#if defined(__AMX_BF16__)
    constexpr long request_permission = 0x1023, tile_data = 18;  // arch_prctl(2)
    if (syscall(SYS_arch_prctl, request_permission, tile_data) != 0) return 0;
    const auto step = [](int calls) {
        struct alignas(64) {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        _tile_loadconfig(&config);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        _tile_zero(4);
        _tile_zero(5);
        _tile_zero(6);
        _tile_zero(7);
        for (int i = 0; i < calls; ++i) {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_release();
    };
    return rate_of(step, 4 * 16.0 * 16 * 32 * 2, threads);
#else
    return 0;
#endif
}

struct peaks {
    double f32 = 0, bf16_dot = 0, amx = 0;
};

inline peaks peaks_of(int threads) {
    return {f32_peak(threads), bf16_dot_peak(threads), amx_peak(threads)};
}

}  // namespace bench
