// Whose a stream is, for drivers and runtimes before CUDA 12.8, which do not tell: its context's device.
#pragma once

#include <cuda.h>

#include <grpo/detail/config.hpp>

namespace grpo::inline v0::detail {

struct stream_owner {
    decltype(&::cuStreamGetCtx) context = nullptr;
    decltype(&::cuCtxPushCurrent) push = nullptr;
    decltype(&::cuCtxGetDevice) device = nullptr;
    decltype(&::cuCtxPopCurrent) pop = nullptr;

    // `what` becomes the function that failed. Leaves the context in use as it was.
    CUresult operator()(CUstream stream, CUdevice& owner, const char*& what) const {
        CUcontext of_stream = nullptr;
        what = "cuStreamGetCtx";
        if (const CUresult code = context(stream, &of_stream); code != CUDA_SUCCESS) return code;
        what = "cuCtxPushCurrent";
        if (const CUresult code = push(of_stream); code != CUDA_SUCCESS) return code;
        what = "cuCtxGetDevice";
        const CUresult told = device(&owner);
        const CUresult popped = pop(&of_stream);
        return told != CUDA_SUCCESS ? told : popped;
    }
};

}  // namespace grpo::inline v0::detail
