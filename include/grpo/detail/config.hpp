// Version, ABI namespace and the host/device marker. Everything else in grpo includes this.
#pragma once

#define GRPO_VERSION_MAJOR 0
#define GRPO_VERSION_MINOR 1
#define GRPO_VERSION_PATCH 0

// Marks what formulas are made of: functions that also run inside a kernel. Optimised builds inline them by force, because
// only then do hyper-parameters become loop constants under every compiler; a term of yours may carry it too.
#if defined(__CUDACC__)
#define GRPO_HD __host__ __device__ inline
#elif defined(__OPTIMIZE__)
#define GRPO_HD [[gnu::always_inline]] inline
#else
#define GRPO_HD inline
#endif

// What walks a whole row: a program has each of these once, so that the loops around them keep their registers. A kernel,
// which has no registers to keep across a call, has them inline.
#if defined(__CUDACC__)
#define GRPO_HD_WHOLE __host__ __device__ inline
#else
#define GRPO_HD_WHOLE [[gnu::noinline]]
#endif

// Before a loop that a kernel's text should have once: one that is rare, or whose body is large.
#if defined(__CUDA_ARCH__)
#define GRPO_ROLLED _Pragma("unroll 1")
#else
#define GRPO_ROLLED
#endif

// The inline namespace changes only when the layout of a public type does: mixing versions is then a link error.
namespace grpo::inline v0::detail {

// std::bit_cast, which kernels cannot call; CUDA's compilers have the built-in one since 12.3.
template <class To, class From>
GRPO_HD To bit_cast(const From& x) {
#if defined(__CUDACC__) && __CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ < 3
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    __builtin_memcpy(&bits, &x, sizeof(To));
    return bits;
#else
    return __builtin_bit_cast(To, x);
#endif
}

}  // namespace grpo::inline v0::detail
