// A CUDA driver without a GPU, that takes everything down. Machine code must be an ELF file that holds the kernel that is asked
// for, and is not run; PTX is followed, instruction by instruction.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <cuda.h>

#include <emulator/driver.hpp>
#include <emulator/instructions.hpp>

#undef cuMemsetD8Async
#undef cuStreamGetDevice
#undef cuLaunchKernelEx

namespace {

fake_cuda now;
#ifdef GRPO_DRIVER_BEFORE_12_8
std::vector<int> pushed;  // devices in use before
#endif
struct library {
    std::string code;
    emulator::module_text ptx{};
};
struct kernel {
    std::string name;
    const emulator::function* code = nullptr;  // of PTX
    int shared_bytes = 0;
};

// Never unloaded.
std::vector<std::unique_ptr<library>> libraries;
std::vector<std::unique_ptr<kernel>> kernels;

CUresult load_ptx(CUlibrary* to, const char* text) {
    if (std::strncmp(text, "//", 2) != 0) return CUDA_ERROR_INVALID_IMAGE;
    try {
        libraries.push_back(std::make_unique<library>(library{"", emulator::parse(text)}));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return CUDA_ERROR_INVALID_PTX;
    }
    *to = reinterpret_cast<CUlibrary>(libraries.back().get());
    ++now.loads;
    return CUDA_SUCCESS;
}
CUresult follow(const emulator::launch& what) {
    if (now.captured != nullptr) {
        std::vector<std::vector<std::byte>> kept;  // parameters as they are now
        for (std::size_t k = 0; k < what.kernel->inputs.size(); ++k) {
            const auto* const from = static_cast<const std::byte*>(what.parameters[k]);
            kept.emplace_back(from, from + what.kernel->parameters.at(what.kernel->inputs[k]).second);
        }
        now.captured->emplace_back([what, kept] {
            std::vector<const void*> parameters;
            for (const auto& bytes : kept) parameters.push_back(bytes.data());
            emulator::launch later = what;
            later.parameters = parameters.data();
            emulator::machine::run(later);
        });
        return CUDA_SUCCESS;
    }
    try {
        emulator::machine::run(what);
        return CUDA_SUCCESS;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return CUDA_ERROR_LAUNCH_FAILED;
    }
}

}  // namespace

extern "C" {

fake_cuda* fake_cuda_state() {
    return &now;
}

CUresult cuInit(unsigned) {
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult code, const char** text) {
    *text = code == CUDA_ERROR_LAUNCH_FAILED ? "unspecified launch failure" : "some error";
    return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* device) {
    *device = now.device;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
    switch (which) {
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
            *value = now.multiprocessors;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            *value = now.capability / 10;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            *value = now.capability % 10;
            return CUDA_SUCCESS;
        default:
            return CUDA_ERROR_INVALID_VALUE;
    }
}
CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* which, void** to, CUdeviceptr p) {
    if (now.query_fails != 0) return static_cast<CUresult>(now.query_fails);
    const auto* const at = reinterpret_cast<const void*>(p);
    const bool host = now.on_device != nullptr ? !now.on_device(at) : at == now.on_host && at != nullptr;
    for (unsigned k = 0; k < count; ++k) {
        if (which[k] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
            *static_cast<unsigned*>(to[k]) = host ? 0 : 2;  // CU_MEMORYTYPE_DEVICE
        else if (which[k] == CU_POINTER_ATTRIBUTE_IS_MANAGED)
            *static_cast<unsigned*>(to[k]) = 0;
        else
            *static_cast<int*>(to[k]) = at == now.on_another && at != nullptr ? 3 : now.device;
    }
    return CUDA_SUCCESS;
}
#ifndef GRPO_DRIVER_BEFORE_12_8
CUresult cuStreamGetDevice(CUstream, CUdevice* device) {
    *device = now.device_of_stream;
    return CUDA_SUCCESS;
}
#else
// The context of a device: the address of its number.
CUresult cuStreamGetCtx(CUstream, CUcontext* context) {
    *context = reinterpret_cast<CUcontext>(&now.device_of_stream);
    return CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent(CUcontext context) {
    pushed.push_back(now.device);
    now.device = *reinterpret_cast<const int*>(context);
    return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext*) {
    now.device = pushed.back();
    pushed.pop_back();
    return CUDA_SUCCESS;
}
#endif
CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char value, std::size_t bytes, CUstream) {
    ++now.cleared;
    const auto work = [=] { std::memset(reinterpret_cast<void*>(p), value, bytes); };
    if (now.captured != nullptr) now.captured->emplace_back(work);
    else work();
    return CUDA_SUCCESS;
}
CUresult cuLibraryLoadData(CUlibrary* to, const void* code, CUjit_option*, void**, unsigned, CUlibraryOption*, void**,
                           unsigned) {
    const auto* const bytes = static_cast<const unsigned char*>(code);
    if (std::memcmp(bytes, "\177ELF", 4) != 0) return load_ptx(to, static_cast<const char*>(code));
    std::uint64_t sections = 0;  // their headers come after what they hold
    std::uint16_t size = 0, count = 0;
    std::memcpy(&sections, bytes + 0x28, sizeof sections);
    std::memcpy(&size, bytes + 0x3a, sizeof size);
    std::memcpy(&count, bytes + 0x3c, sizeof count);
    const std::size_t end = sections + std::size_t{size} * count;
    libraries.push_back(std::make_unique<library>(library{std::string(reinterpret_cast<const char*>(bytes), end)}));
    *to = reinterpret_cast<CUlibrary>(libraries.back().get());
    ++now.loads;
    return CUDA_SUCCESS;
}
CUresult cuLibraryGetKernel(CUkernel* to, CUlibrary from, const char* name) {
    const auto* const in = reinterpret_cast<const library*>(from);
    const emulator::function* const code = in->ptx.find(name);
    if (code == nullptr && in->code.find(".text." + std::string(name)) == std::string::npos) return CUDA_ERROR_NOT_FOUND;
    kernels.push_back(std::make_unique<kernel>(kernel{name, code}));
    *to = reinterpret_cast<CUkernel>(kernels.back().get());
    return CUDA_SUCCESS;
}
CUresult cuKernelSetAttribute(CUfunction_attribute which, int value, CUkernel of, CUdevice) {
    if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
    reinterpret_cast<kernel*>(of)->shared_bytes = value;
    return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveClusters(int* count, CUfunction, const CUlaunchConfig*) {
    *count = now.clusters;
    return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* count, CUfunction, int, std::size_t) {
    *count = now.blocks;
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters, void**) {
    const auto* const what = reinterpret_cast<const kernel*>(function);
    if (now.launch_fails != 0) return static_cast<CUresult>(now.launch_fails);
    if (config->sharedMemBytes > 48u * 1024 && static_cast<int>(config->sharedMemBytes) > what->shared_bytes) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    unsigned cluster = 1;
    for (unsigned k = 0; k < config->numAttrs; ++k) {
        if (config->attrs[k].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) cluster = config->attrs[k].value.clusterDim.x;
    }
    const auto* const body = static_cast<const std::byte*>(parameters[0]);
    now.launches.push_back({what->name, config->gridDimX, config->blockDimX, cluster, config->sharedMemBytes,
                            std::vector<std::byte>(body, body + now.body_bytes)});
    if (what->code == nullptr) return CUDA_SUCCESS;
    return follow({what->code, parameters, config->gridDimX, config->blockDimX, cluster, config->sharedMemBytes});
}

}  // extern "C"
