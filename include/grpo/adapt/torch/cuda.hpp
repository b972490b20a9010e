// CUDA tensors: an executor for the functions of adapt/torch.hpp that computes where the tensors are.
//
//   auto r = grpo::libtorch::evaluate(loss, {.logp = logp, .logp_old = old, .advantage = a}, {}, grpo::libtorch::on_cuda());
//
// All tensors of a call are on one device. The work goes to that device's current stream, its memory comes from LibTorch's
// allocator, and the caller's current device stays as it is. The sums of a loss are returned on the host, so a loss waits for
// them; so does a denominator that is not given, for the counts. What lies on the device is not looked at: cu_seqlens and
// targets are taken as they are (see docs/cuda.md).
//
// Compiled by nvcc, kernels are nvcc's (component cuda); by another compiler they are compiled at run time (component nvrtc).
// Hidden states are multiplied by grpo::cublas_gemm, over at::cuda::getCurrentCUDABlasHandle(). Where LibTorch was built
// without CUDA, this header is empty.
#pragma once

// What LibTorch has if it was built for CUDA.
#if __has_include(<c10/cuda/impl/cuda_cmake_macros.h>) && __has_include(<cuda_runtime_api.h>)

#include <grpo/adapt/torch.hpp>

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <grpo/exec/cuda.cuh>
#else
#include <grpo/exec/nvrtc.hpp>
#endif

namespace grpo::inline v0 {
namespace libtorch {

namespace detail {

#if defined(__CUDACC__)
using cuda_tensors_runtime = grpo::detail::cuda_runtime;
#else
using cuda_tensors_runtime = grpo::detail::nvrtc_runtime;
#endif

// A device in use, with its current stream.
class cuda_site {
public:
    using executor_type = device_executor<cuda_tensors_runtime>;

    cuda_site(const cuda_tensors_runtime& runtime, at::Device device) : runtime_(runtime), guard_(device) {}
    cuda_site(const cuda_site&) = delete;
    cuda_site& operator=(const cuda_site&) = delete;

    at::Device device() const { return guard_.current_device(); }
    // One at a time: its workspace is this one's.
    executor_type executor(std::int64_t rows) const {
        const std::int64_t bytes = executor_type::workspace_bytes(rows);
        workspace_ = at::empty({bytes}, made(device(), at::kByte));
        return executor_type(c10::cuda::getCurrentCUDAStream(device().index()).stream(), write<std::byte>(workspace_),
                             runtime_);
    }

private:
    cuda_tensors_runtime runtime_;
    c10::cuda::CUDAGuard guard_;
    mutable at::Tensor workspace_;
};

}  // namespace detail

class on_cuda {
public:
#if defined(__CUDACC__)
    on_cuda() = default;
#else
    // Raises where there is no driver. Kernels outlive what is computed with them, backward passes too.
    explicit on_cuda(nvrtc_kernels& kernels = nvrtc_kernels::of_program()) : runtime_(kernels) {}
#endif

    detail::cuda_site for_tensors(const char* function, const char* name, const at::Tensor& like) const {
        if (!like.is_cuda()) {
            detail::require(detail::complain(function, name,
                                             "is on the device %s, but on_cuda computes on CUDA tensors",
                                             like.device().str().c_str()));
        }
        return {runtime_, like.device()};
    }

private:
    detail::cuda_tensors_runtime runtime_;
};

}  // namespace libtorch
}  // namespace grpo::inline v0

#endif
