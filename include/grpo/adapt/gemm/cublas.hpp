// Matrix products by cuBLAS, for heads whose states lie in the memory of an NVIDIA GPU. Component `cublas` (grpo::cublas).
//
//   grpo::cublas_gemm gemm(handle);   // a cublasHandle_t whose stream is the executor's: cublasSetStream(handle, stream)
//
// cuBLAS takes memory of its own for a handle, once; cublasSetWorkspace(handle, ...) gives it the caller's, which a stream
// that is being captured asks for.
#pragma once

#include <climits>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <cublas_v2.h>

#include <grpo/detail/check.hpp>
#include <grpo/head/gemm.hpp>
#include <grpo/storage.hpp>

namespace grpo::inline v0 {
namespace detail {

template <class T>
inline constexpr cudaDataType_t cuda_type = std::same_as<T, double>     ? CUDA_R_64F
                                            : std::same_as<T, bfloat16> ? CUDA_R_16BF
                                            : std::same_as<T, float16>  ? CUDA_R_16F
                                                                        : CUDA_R_32F;

}  // namespace detail

// Operands of one type; bfloat16, float16 and float are summed in float, double in double, and written as such; products of 16-bit
// ones also rounded to their own type. float operands are multiplied as they are: `tensor_float` rounds them to TF32 first, several times as fast. Pointers are a device's; the product is enqueued
// on the handle's stream. The same bits from run to run on the same device. Errors: negative sizes or ones over 2^31 - 1, a
// stride below a row's length, null pointers, a status of cuBLAS other than success. O(m n k).
struct cublas_gemm {
    explicit cublas_gemm(cublasHandle_t handle, bool tensor_float = false) : handle_(handle), tensor_float_(tensor_float) {}

    template <detail::gemm_storage T, detail::gemm_storage C>
        requires(std::same_as<C, T> || (sizeof(T) == 2 && std::same_as<C, float>))
    void multiply(std::int64_t m, std::int64_t n, std::int64_t k, operand<T> a, operand<T> b,
                  std::type_identity_t<gemm_scale<C>> beta, C* c, std::int64_t stride_c) const {
        detail::require(detail::check_product("cublas_gemm", m, n, k, a, b, c, stride_c));
        detail::require(detail::first_of(fits("m", m), fits("n", n), fits("k", k), fits("a.stride", a.stride),
                                         fits("b.stride", b.stride), fits("stride_c", stride_c)));
        if (m == 0 || n == 0) return;
        const gemm_scale<C> one = 1;
        const gemm_scale<C> scale = beta;
        // Rows as columns: cᵀ = bᵀ aᵀ.
        const cublasStatus_t status = cublasGemmEx(
            handle_, turned(b.transposed), turned(a.transposed), number(n), number(m), number(k), &one, b.data,
            detail::cuda_type<T>, apart(b.stride, b.transposed ? k : n), a.data, detail::cuda_type<T>,
            apart(a.stride, a.transposed ? m : k), &scale, c, detail::cuda_type<C>, apart(stride_c, n), compute<T>(),
            CUBLAS_GEMM_DEFAULT);
        if (status != CUBLAS_STATUS_SUCCESS) {
            detail::raise(detail::complain("cublas_gemm", "cublasGemmEx", "failed: %s (%lld)", cublasGetStatusString(status),
                                           static_cast<long long>(status)));
        }
    }

private:
    static problem fits(const char* argument, std::int64_t size) {
        if (size <= INT_MAX) return {};
        return detail::complain("cublas_gemm", argument, "is %lld, but cuBLAS counts to %lld", static_cast<long long>(size),
                                static_cast<long long>(INT_MAX));
    }
    static int number(std::int64_t x) { return static_cast<int>(x); }
    // The stride of the only row has no meaning, but cuBLAS asks for a row's length.
    static int apart(std::int64_t stride, std::int64_t length) { return number(stride < length ? length : stride); }
    static cublasOperation_t turned(bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }
    template <class T>
    cublasComputeType_t compute() const {
        if (std::same_as<T, double>) return CUBLAS_COMPUTE_64F;
        return std::same_as<T, float> && tensor_float_ ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    }

    cublasHandle_t handle_;
    bool tensor_float_;
};

}  // namespace grpo::inline v0
