// Rows on an NVIDIA GPU, from a program that any C++20 compiler built: kernels are compiled where it runs, by NVRTC.
//
//   grpo::nvrtc gpu(stream, workspace);                      // otherwise as grpo::cuda: see exec/cuda.cuh
//   const grpo::loss_result* r = grpo::evaluate(gpu.into(result), loss, batch, n, grpo::d_logp(gradient));
//
// The same kernels as cuda's, of the same headers. The first call with a kernel compiles and loads it, which takes a second
// or two, waits, and may not be part of a capture; the next calls enqueue it as cuda does. Kernels are kept by their parameters
// (the types of the loss, the batch, the storage) and the device's architecture, in the program and, if asked, in a folder:
//
//   grpo::nvrtc_kernels kernels({.cache = "/var/cache/app"});
//   kernels.compile_all(90);                                 // all that this program can launch, for sm_90; needs no GPU
//   grpo::nvrtc gpu(stream, workspace, kernels);             // kernels outlive it
//
// Neither the driver nor NVRTC is linked: a program starts without them, and what needs them raises a sentence. A driver and an
// NVRTC of CUDA 12.1 or newer; GRPO_CUDA_DRIVER and GRPO_NVRTC name other files, GRPO_NVRTC_CACHE a folder for kernels.
// A term of your own is compiled too: give its text as nvrtc_options::prelude, with GRPO_HD on its functions. Types without a
// name (lambdas) and those within functions are for the CPU alone. Needs <cuda.h>, <nvrtc.h> and run-time type information.
#pragma once

#include <cstddef>

#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/executor.hpp>
#include <grpo/exec/cuda/plan.hpp>
#include <grpo/exec/nvrtc/kernels.hpp>
#include <grpo/exec/nvrtc/library.hpp>

namespace grpo::inline v0 {
namespace detail {

// Kernels that NVRTC compiled, launched by the driver.
class nvrtc_runtime {
public:
    using stream_type = CUstream;
    static constexpr const char* name = "nvrtc";

    nvrtc_runtime() : nvrtc_runtime(nvrtc_kernels::of_program()) {}
    nvrtc_runtime(nvrtc_kernels& kernels) : driver_(&cuda_driver::open()), kernels_(&kernels) {}  // NOLINT: on purpose

    device_facts device() const {
        device_facts facts;
        CUdevice device = 0;
        driver_->require("cuCtxGetDevice", driver_->context_device(&device));
        facts.device = device;
        facts.multiprocessors = attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
        facts.capability = 10 * attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device) +
                           attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
        return facts;
    }
    int device_of(CUstream stream, int in_use) const {
        CUdevice device = in_use;
        if (stream == nullptr) return device;
        const char* what = "cuStreamGetDevice";
        const CUresult code = driver_->stream_device != nullptr ? driver_->stream_device(stream, &device)
                                                                : driver_->of_stream(stream, device, what);
        driver_->require(what, code);
        return device;
    }
    problem locate(const char* function, const char* argument, const void* p, int& device) const {
        unsigned kind = 0;
        unsigned managed = 0;
        int owner = 0;
        CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                       CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
        void* to[] = {&kind, &managed, &owner};
        const CUresult done = driver_->pointer_attributes(3, which, to, reinterpret_cast<CUdeviceptr>(p));
        if (const problem wrong = driver_->failed(function, argument, done)) return wrong;
        if (kind == 0) device = host_memory_alone;
        else device = kind == CU_MEMORYTYPE_DEVICE && managed == 0 ? owner : every_device;
        return {};
    }
    void clear(CUstream stream, void* p, std::size_t bytes) const {
        driver_->require("cuMemsetD8Async", driver_->memset(reinterpret_cast<CUdeviceptr>(p), 0, bytes, stream));
    }

    template <class Kernel, class... Arguments>
    int clusters_at_once(const launch_plan& plan, const device_facts& facts, Kernel, const Arguments&...) const {
        int count = 0;
        const auto function = reinterpret_cast<CUfunction>(loaded<Kernel, Arguments...>(plan, facts));
        if (plan.blocks > 1) {
            const configuration config(nullptr, plan);
            driver_->require("cuOccupancyMaxActiveClusters", driver_->clusters(&count, function, &config.launch));
            return count;
        }
        driver_->require("cuOccupancyMaxActiveBlocksPerMultiprocessor",
                         driver_->blocks(&count, function, plan.threads, plan.shared_bytes()));
        return count * facts.multiprocessors;
    }
    template <class Kernel, class... Arguments>
    void launch(CUstream stream, const launch_plan& plan, const device_facts& facts, Kernel,
                const Arguments&... arguments) const {
        const CUkernel kernel = loaded<Kernel, Arguments...>(plan, facts);
        const configuration config(stream, plan);
        const void* parameters[] = {static_cast<const void*>(&arguments)...};
        driver_->require("the launch of a kernel", driver_->launch(&config.launch, reinterpret_cast<CUfunction>(kernel),
                                                                   const_cast<void**>(parameters), nullptr));
    }

private:
    struct configuration {
        CUlaunchConfig launch{};
        CUlaunchAttribute cluster{};

        configuration(CUstream stream, const launch_plan& plan) {
            launch.gridDimX = static_cast<unsigned>(plan.grid);
            launch.gridDimY = 1;
            launch.gridDimZ = 1;
            launch.blockDimX = static_cast<unsigned>(plan.threads);
            launch.blockDimY = 1;
            launch.blockDimZ = 1;
            launch.sharedMemBytes = static_cast<unsigned>(plan.shared_bytes());
            launch.hStream = stream;
            cluster.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            cluster.value.clusterDim.x = static_cast<unsigned>(plan.blocks);
            cluster.value.clusterDim.y = 1;
            cluster.value.clusterDim.z = 1;
            launch.attrs = &cluster;
            launch.numAttrs = plan.blocks > 1 ? 1 : 0;
        }
        configuration(const configuration&) = delete;
        configuration& operator=(const configuration&) = delete;
    };

    template <class Kernel, class... Arguments>
    CUkernel loaded(const launch_plan& plan, const device_facts& facts) const {
        const CUkernel kernel = kernels_->loaded(program_kernel<Kernel, Arguments...>::entry, facts.capability);
        if (plan.ahead) {
            driver_->require("cuKernelSetAttribute",
                             driver_->kernel_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                                       static_cast<int>(plan.shared_bytes()), kernel, facts.device));
        }
        return kernel;
    }
    int attribute(CUdevice_attribute which, CUdevice device) const {
        int value = 0;
        driver_->require("cuDeviceGetAttribute", driver_->device_attribute(&value, which, device));
        return value;
    }

    const cuda_driver* driver_;
    nvrtc_kernels* kernels_;
};

}  // namespace detail

using nvrtc = device_executor<detail::nvrtc_runtime>;

}  // namespace grpo::inline v0
