// The functions of cuBLAS that tests/cuda calls: plain loops over the host's memory, summed in the type of the result, or in
// float if that is of 16 bits.
#include <cstdint>
#include <type_traits>

#include <cublas_v2.h>

#include <grpo/head/gemm.hpp>
#include <grpo/storage.hpp>

namespace {

// Column by column, as cuBLAS counts: c[i, j] = alpha Σ_l a[i, l] b[l, j] + beta c[i, j].
template <class T, class C, class S>
void product(bool turn_a, bool turn_b, int m, int n, int k, S alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb,
             S beta, C* c, std::int64_t ldc) {
    for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t i = 0; i < m; ++i) {
            S sum = 0;
            for (std::int64_t l = 0; l < k; ++l) {
                sum += static_cast<S>(a[turn_a ? l + i * lda : i + l * lda]) * static_cast<S>(b[turn_b ? j + l * ldb : l + j * ldb]);
            }
            C& to = c[i + j * ldc];
            to = static_cast<C>(beta == 0 ? alpha * sum : alpha * sum + beta * static_cast<S>(to));
        }
    }
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t*) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) {
    return CUBLAS_STATUS_SUCCESS;
}
const char* cublasGetStatusString(cublasStatus_t) {
    return "a status";
}
cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t turn_a, cublasOperation_t turn_b, int m, int n, int k, const void* alpha,
                            const void* a, cudaDataType of_a, int lda, const void* b, cudaDataType of_b, int ldb, const void* beta,
                            void* c, cudaDataType of_c, int ldc, cublasComputeType_t, cublasGemmAlgo_t) {
    if (of_a != of_b) return CUBLAS_STATUS_NOT_SUPPORTED;
    const auto run = [&]<class T, class C>(const T*, C*) {
        using S = grpo::gemm_scale<C>;
        product(turn_a == CUBLAS_OP_T, turn_b == CUBLAS_OP_T, m, n, k, *static_cast<const S*>(alpha), static_cast<const T*>(a), lda,
                static_cast<const T*>(b), ldb, *static_cast<const S*>(beta), static_cast<C*>(c), ldc);
        return CUBLAS_STATUS_SUCCESS;
    };
    float* const single = nullptr;
    double* const twice = nullptr;
    grpo::bfloat16* const brain = nullptr;
    grpo::float16* const narrow = nullptr;
    if (of_a == CUDA_R_64F && of_c == CUDA_R_64F) return run(twice, twice);
    if (of_a == CUDA_R_16BF && of_c == CUDA_R_16BF) return run(brain, brain);
    if (of_a == CUDA_R_16F && of_c == CUDA_R_16F) return run(narrow, narrow);
    if (of_c != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (of_a == CUDA_R_32F) return run(single, single);
    if (of_a == CUDA_R_16BF) return run(brain, single);
    if (of_a == CUDA_R_16F) return run(narrow, single);
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

}  // extern "C"
