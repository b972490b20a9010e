// Matrix products by a BLAS through its C interface: OpenBLAS, BLIS, ATLAS, the reference. Component `blas`
// (grpo::blas). MKL calls the header <mkl_cblas.h>: include that before this one.
//
// Where an executor's threads call it, the BLAS itself should use one thread: openblas_set_num_threads(1), or
// OPENBLAS_NUM_THREADS=1 (BLIS_NUM_THREADS, MKL_NUM_THREADS) in the environment.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

// ATLAS's header leaves the linkage to whoever includes it.
#if !defined(__MKL_CBLAS_H__)
extern "C" {
#include <cblas.h>
}
#endif

#include <grpo/detail/check.hpp>
#include <grpo/head/gemm.hpp>

namespace grpo::inline v0 {

namespace detail {

// The integer of the BLAS at hand, which vendors name differently, and which has 64 bits in some builds.
template <class Order, class Transpose, class Size>
Size blas_integer_of(void (*)(Order, Transpose, Transpose, Size, Size, Size, float, const float*, Size, const float*,
                              Size, float, float*, Size));
using blas_integer = decltype(blas_integer_of(&cblas_sgemm));

inline problem check_blas_size(const char* argument, std::int64_t size) {
    constexpr std::int64_t most = std::numeric_limits<blas_integer>::max();
    if (size <= most) return {};
    return complain("blas_gemm", argument, "is %lld, but this BLAS takes at most %lld", static_cast<long long>(size),
                    static_cast<long long>(most));
}

}  // namespace detail

// float × float -> float and double × double -> double. Errors: negative sizes, a stride below a row's length, null
// pointers, a size or stride beyond the BLAS's integer (2^31 - 1 in most builds). O(m n k).
struct blas_gemm {
    template <detail::gemm_compute T>
    void multiply(std::int64_t m, std::int64_t n, std::int64_t k, operand<T> a, operand<T> b,
                  std::type_identity_t<T> beta, T* c, std::int64_t stride_c) const {
        detail::require(detail::check_product("blas_gemm", m, n, k, a, b, c, stride_c));
        if (m == 0 || n == 0) return;
        const std::int64_t stride_a = leading(a, m, k), stride_b = leading(b, k, n);
        stride_c = at_least(stride_c, n);
        detail::require(detail::first_of(
            detail::check_blas_size("m", m), detail::check_blas_size("n", n), detail::check_blas_size("k", k),
            detail::check_blas_size("the stride of a", stride_a), detail::check_blas_size("the stride of b", stride_b),
            detail::check_blas_size("the stride of c", stride_c)));
        const auto size = [](std::int64_t x) { return static_cast<detail::blas_integer>(x); };
        const auto way = [](bool transposed) { return transposed ? CblasTrans : CblasNoTrans; };
        const auto call = [&](auto* gemm) {
            gemm(CblasRowMajor, way(a.transposed), way(b.transposed), size(m), size(n), size(k), T(1), a.data,
                 size(stride_a), b.data, size(stride_b), beta, c, size(stride_c));
        };
        if constexpr (std::same_as<T, float>)
            call(&cblas_sgemm);
        else
            call(&cblas_dgemm);
    }

private:
    static std::int64_t at_least(std::int64_t stride, std::int64_t length) {
        return stride < length ? length : stride < 1 ? 1 : stride;
    }
    // BLAS asks for a stride of a row's length also where there is one row or none.
    template <class T>
    static std::int64_t leading(const operand<T>& x, std::int64_t rows, std::int64_t columns) {
        return at_least(x.stride, x.transposed ? rows : columns);
    }
};

}  // namespace grpo::inline v0
