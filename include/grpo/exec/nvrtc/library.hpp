// The CUDA driver and NVRTC, opened when they are first asked for: a program starts without either.
#pragma once

#include <cstdlib>
#include <initializer_list>

#include <cuda.h>
#include <dlfcn.h>
#include <nvrtc.h>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/stream_owner.hpp>

#if CUDA_VERSION < 12010
#error "grpo: <cuda.h> is older than CUDA 12.1, which run-time compilation needs"
#endif

namespace grpo::inline v0::detail {

// A shared library that stays open for the length of the program, and its functions.
class shared_library {
public:
    // The file that an environment variable names, else the first of some that can be opened.
    shared_library(const char* what, const char* variable, std::initializer_list<const char*> names) : what_(what) {
        if (const char* const named = std::getenv(variable)) {
            handle_ = ::dlopen(named, RTLD_NOW | RTLD_LOCAL);
        } else {
            for (const char* const name : names) {
                if (handle_ == nullptr) handle_ = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
            }
        }
        if (handle_ != nullptr) return;
        const char* const why = ::dlerror();
        raise(complain("nvrtc", what, "cannot be opened: %s", why != nullptr ? why : "no reason given"));
    }
    template <class F>
    void find(F*& function, const char* name) const {
        find_if_there(function, name);
        if (function == nullptr) raise(complain("nvrtc", what_, "has no function %s: it is too old", name));
    }
    template <class F>
    void find_if_there(F*& function, const char* name) const {
        function = reinterpret_cast<F*>(::dlsym(handle_, name));
    }

private:
    const char* what_;
    void* handle_ = nullptr;
};

// GRPO_CUDA_DRIVER names another file.
struct cuda_driver {
    decltype(&::cuInit) init;
    decltype(&::cuGetErrorString) error_string;
    decltype(&::cuCtxGetDevice) context_device;
    decltype(&::cuDeviceGetAttribute) device_attribute;
    decltype(&::cuPointerGetAttributes) pointer_attributes;
    CUresult (*stream_device)(CUstream, CUdevice*);  // of drivers since 12.8
    stream_owner of_stream;                           // of those before
    decltype(&::cuMemsetD8Async) memset;
    decltype(&::cuLibraryLoadData) load;
    decltype(&::cuLibraryGetKernel) kernel;
    decltype(&::cuKernelSetAttribute) kernel_attribute;
    decltype(&::cuOccupancyMaxActiveClusters) clusters;
    decltype(&::cuOccupancyMaxActiveBlocksPerMultiprocessor) blocks;
    decltype(&::cuLaunchKernelEx) launch;

    static const cuda_driver& open() {
        static const cuda_driver driver;
        return driver;
    }
    problem failed(const char* function, const char* what, CUresult code) const {
        if (code == CUDA_SUCCESS) return {};
        const char* why = nullptr;
        error_string(code, &why);
        return complain(function, what, "failed: %s (%lld)", why != nullptr ? why : "unknown error",
                        static_cast<long long>(code));
    }
    void require(const char* what, CUresult code) const { detail::require(failed("nvrtc", what, code)); }

private:
    cuda_driver() {
        const shared_library file("the CUDA driver", "GRPO_CUDA_DRIVER", {"libcuda.so.1", "libcuda.so"});
        file.find(init, "cuInit");
        file.find(error_string, "cuGetErrorString");
        file.find(context_device, "cuCtxGetDevice");
        file.find(device_attribute, "cuDeviceGetAttribute");
        file.find(pointer_attributes, "cuPointerGetAttributes");
        file.find_if_there(stream_device, "cuStreamGetDevice");
        if (stream_device == nullptr) {
            file.find(of_stream.context, "cuStreamGetCtx");
            file.find(of_stream.push, "cuCtxPushCurrent_v2");
            file.find(of_stream.device, "cuCtxGetDevice");
            file.find(of_stream.pop, "cuCtxPopCurrent_v2");
        }
        file.find(memset, "cuMemsetD8Async");
        file.find(load, "cuLibraryLoadData");
        file.find(kernel, "cuLibraryGetKernel");
        file.find(kernel_attribute, "cuKernelSetAttribute");
        file.find(clusters, "cuOccupancyMaxActiveClusters");
        file.find(blocks, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
        file.find(launch, "cuLaunchKernelEx");
        require("cuInit", init(0));
    }
};

// GRPO_NVRTC names another file.
struct nvrtc_library {
    decltype(&::nvrtcGetErrorString) error_string;
    decltype(&::nvrtcVersion) version;
    decltype(&::nvrtcCreateProgram) create;
    decltype(&::nvrtcDestroyProgram) destroy;
    decltype(&::nvrtcAddNameExpression) add_name;
    decltype(&::nvrtcCompileProgram) compile;
    decltype(&::nvrtcGetProgramLogSize) log_size;
    decltype(&::nvrtcGetProgramLog) log;
    decltype(&::nvrtcGetLoweredName) lowered_name;
    decltype(&::nvrtcGetCUBINSize) cubin_size;
    decltype(&::nvrtcGetCUBIN) cubin;

    static const nvrtc_library& open() {
        static const nvrtc_library library;
        return library;
    }
    void require(const char* what, nvrtcResult code) const {
        if (code == NVRTC_SUCCESS) return;
        raise(complain("nvrtc", what, "failed: %s", error_string(code)));
    }

private:
    nvrtc_library() {
        const shared_library file(
            "NVRTC", "GRPO_NVRTC",
            {"libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so"});
        file.find(error_string, "nvrtcGetErrorString");
        file.find(version, "nvrtcVersion");
        file.find(create, "nvrtcCreateProgram");
        file.find(destroy, "nvrtcDestroyProgram");
        file.find(add_name, "nvrtcAddNameExpression");
        file.find(compile, "nvrtcCompileProgram");
        file.find(log_size, "nvrtcGetProgramLogSize");
        file.find(log, "nvrtcGetProgramLog");
        file.find(lowered_name, "nvrtcGetLoweredName");
        file.find(cubin_size, "nvrtcGetCUBINSize");
        file.find(cubin, "nvrtcGetCUBIN");
    }
};

}  // namespace grpo::inline v0::detail
