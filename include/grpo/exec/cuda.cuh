// Rows on an NVIDIA GPU.
//
//   grpo::cuda gpu(stream, workspace);                       // device memory of the caller's: cuda::workspace_bytes(rows)
//   const grpo::loss_result* r = grpo::evaluate(gpu.into(result), loss, batch, n, grpo::d_logp(gradient));
//
// Views hold device pointers. Everything is enqueued on the stream: nothing is allocated, nothing waits, and a stream that is
// being captured may be used. What functions return on the host is written to device memory, and its address is returned: the
// address given with into(), or one in the workspace, valid until the next call. Level: the same bits from run to run (fixed
// trees, no atomic floats); sums differ from serial's by rounding.
//
// Compiled by nvcc with -std=c++20 and no other flag, for sm_75 and newer; clusters of blocks from sm_90 on. What lies in
// device memory is not looked at beforehand: a target outside the vocabulary has the log-probability -inf, offsets of ragged()
// come with their extent, and rewards may not hold NaN where they count.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/executor.hpp>
#include <grpo/exec/cuda/kernels.cuh>
#include <grpo/exec/cuda/plan.hpp>
#if CUDART_VERSION < 12010
#error "grpo: the CUDA Toolkit is older than 12.1, the first whose assembler knows what clusters of blocks use"
#endif
#if CUDART_VERSION < 12080
#include <grpo/exec/cuda/stream_owner.hpp>
#endif

namespace grpo::inline v0 {
namespace detail {

inline problem cuda_problem(const char* function, const char* what, cudaError_t code) {
    if (code == cudaSuccess) return {};
    return complain(function, what, "failed: %s (%lld)", cudaGetErrorString(code), static_cast<long long>(code));
}
inline void require_cuda(const char* what, cudaError_t code) { require(cuda_problem("cuda", what, code)); }

// Kernels that nvcc compiled, launched by the CUDA runtime.
struct cuda_runtime {
    using stream_type = cudaStream_t;
    static constexpr const char* name = "cuda";

    static device_facts device() {
        device_facts facts;
        require_cuda("cudaGetDevice", cudaGetDevice(&facts.device));
        facts.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, facts.device);
        facts.capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor, facts.device) +
                           attribute(cudaDevAttrComputeCapabilityMinor, facts.device);
        return facts;
    }
    static int device_of(cudaStream_t stream, int in_use) {
        if (stream == nullptr) return in_use;
#if CUDART_VERSION >= 12080
        require_cuda("cudaStreamGetDevice", cudaStreamGetDevice(stream, &in_use));
#else
        static const stream_owner of_stream = [] {
            stream_owner all;
            find(all.context, "cuStreamGetCtx");
            find(all.push, "cuCtxPushCurrent");
            find(all.device, "cuCtxGetDevice");
            find(all.pop, "cuCtxPopCurrent");
            return all;
        }();
        const char* what = nullptr;
        const CUresult code = of_stream(stream, in_use, what);
        require(code == CUDA_SUCCESS ? problem{} : complain(name, what, "failed (%lld)", static_cast<long long>(code)));
#endif
        return in_use;
    }
    static problem locate(const char* function, const char* argument, const void* p, int& device) {
        cudaPointerAttributes at{};
        if (const problem wrong = cuda_problem(function, argument, cudaPointerGetAttributes(&at, p))) return wrong;
        if (at.type == cudaMemoryTypeUnregistered) device = host_memory_alone;
        else device = at.type == cudaMemoryTypeDevice ? at.device : every_device;
        return {};
    }
    static void clear(cudaStream_t stream, void* p, std::size_t bytes) {
        require_cuda("cudaMemsetAsync", cudaMemsetAsync(p, 0, bytes, stream));
    }

    template <class Kernel, class... Arguments>
    static int clusters_at_once(const launch_plan& plan, const device_facts& facts, Kernel which, const Arguments&...) {
        int count = 0;
        auto* const kernel = kernel_of(which);
        const configuration config(nullptr, plan, kernel);
        if (plan.blocks > 1) {
            require_cuda("cudaOccupancyMaxActiveClusters", cudaOccupancyMaxActiveClusters(&count, kernel, &config.launch));
            return count;
        }
        require_cuda("cudaOccupancyMaxActiveBlocksPerMultiprocessor",
                     cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, kernel, plan.threads, plan.shared_bytes()));
        return count * facts.multiprocessors;
    }
    template <class Kernel, class... Arguments>
    static void launch(cudaStream_t stream, const launch_plan& plan, const device_facts&, Kernel which,
                       const Arguments&... arguments) {
        auto* const kernel = kernel_of(which);
        const configuration config(stream, plan, kernel);
        require_cuda("the launch of a kernel", cudaLaunchKernelEx(&config.launch, kernel, arguments...));
    }

private:
#if CUDART_VERSION < 12080
    // The driver's, which is not linked.
    template <class F>
    static void find(F*& function, const char* symbol) {
        void* found = nullptr;
        require_cuda("cudaGetDriverEntryPoint", cudaGetDriverEntryPoint(symbol, &found, cudaEnableDefault));
        function = reinterpret_cast<F*>(found);
    }
#endif
    template <class Body>
    static constexpr auto* kernel_of(kernels::walk_rows<Body>) {
        return &detail::walk_rows<Body>;
    }
    template <bool Clusters, bool Ahead, class Body>
    static constexpr auto* kernel_of(kernels::walk_long_rows<Clusters, Ahead, Body>) {
        return &detail::walk_long_rows<Clusters, Ahead, Body>;
    }
    template <class Body, class Result, class Total, class Add>
    static constexpr auto* kernel_of(kernels::fold_kernel<Body, Result, Total, Add>) {
        return &detail::fold_kernel<Body, Result, Total, Add>;
    }

    static int attribute(cudaDeviceAttr which, int device) {
        int value = 0;
        require_cuda("cudaDeviceGetAttribute", cudaDeviceGetAttribute(&value, which, device));
        return value;
    }

    struct configuration {
        cudaLaunchConfig_t launch{};
        cudaLaunchAttribute cluster{};

        template <class Kernel>
        configuration(cudaStream_t stream, const launch_plan& plan, Kernel* kernel) {
            launch.dynamicSmemBytes = plan.shared_bytes();
            if (plan.ahead) {
                require_cuda("cudaFuncSetAttribute",
                             cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  static_cast<int>(plan.shared_bytes())));
            }
            launch.gridDim = dim3(static_cast<unsigned>(plan.grid));
            launch.blockDim = dim3(static_cast<unsigned>(plan.threads));
            launch.stream = stream;
            cluster.id = cudaLaunchAttributeClusterDimension;
            cluster.val.clusterDim.x = static_cast<unsigned>(plan.blocks);
            cluster.val.clusterDim.y = 1;
            cluster.val.clusterDim.z = 1;
            launch.attrs = &cluster;
            launch.numAttrs = plan.blocks > 1 ? 1 : 0;
        }
        configuration(const configuration&) = delete;
        configuration& operator=(const configuration&) = delete;
    };
};

}  // namespace detail

using cuda = device_executor<detail::cuda_runtime>;

}  // namespace grpo::inline v0
