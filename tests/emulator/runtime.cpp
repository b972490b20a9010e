// The functions of the CUDA runtime that tests/cuda calls, over the host's memory: what is enqueued is done at once. Memory of
// the device begins as bytes of 255.
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <vector>

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <emulator/driver.hpp>

namespace {

fake_cuda& driver() {
    static void* const file = ::dlopen(std::getenv("GRPO_CUDA_DRIVER"), RTLD_NOW);
    static auto* const state = reinterpret_cast<fake_cuda* (*)()>(::dlsym(file, "fake_cuda_state"));
    return *state();
}

// What a device has allocated, each with this before it: those who allocate may be operator new itself.
struct alignas(256) allocation {  // as a device aligns
    allocation* before;
    allocation* after;
    std::size_t bytes;
    const std::byte* begin() const { return reinterpret_cast<const std::byte*>(this + 1); }
};
allocation everything{&everything, &everything, 0};

bool on_device(const void* p) {
    const auto* const at = static_cast<const std::byte*>(p);
    for (const allocation* a = everything.after; a != &everything; a = a->after) {
        if (at >= a->begin() && at < a->begin() + a->bytes) return true;
    }
    return false;
}

}  // namespace

struct CUgraph_st {
    std::vector<std::function<void()>> work;
};

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    if (const char* const asked = std::getenv("GRPO_EMULATED_CAPABILITY")) driver().capability = std::atoi(asked);
    driver().multiprocessors = 3;
    driver().clusters = 2;
    driver().on_device = &on_device;
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, std::size_t bytes) {
    void* const memory = std::aligned_alloc(alignof(allocation), (sizeof(allocation) + bytes + 255) / 256 * 256);
    if (memory == nullptr) return cudaErrorMemoryAllocation;
    auto* const a = new (memory) allocation{&everything, everything.after, bytes};
    a->after->before = a;
    everything.after = a;
    *p = a + 1;
    std::memset(*p, 0xff, bytes);
    return cudaSuccess;
}
cudaError_t cudaMallocManaged(void** p, std::size_t bytes, unsigned) {
    return cudaMalloc(p, bytes);
}
cudaError_t cudaFree(void* p) {
    if (p == nullptr) return cudaSuccess;
    allocation* const a = static_cast<allocation*>(p) - 1;
    a->before->after = a->after;
    a->after->before = a->before;
    std::free(a);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t) {
    std::memset(p, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* left, std::size_t* all) {
    *left = *all = std::size_t{1} << 30;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = nullptr;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
    driver().captured = &(new CUgraph_st)->work;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
    *graph = reinterpret_cast<CUgraph_st*>(driver().captured);
    driver().captured = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* launchable, cudaGraph_t graph, unsigned long long) {
    *launchable = reinterpret_cast<cudaGraphExec_t>(graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t launchable, cudaStream_t) {
    for (const auto& work : reinterpret_cast<CUgraph_st*>(launchable)->work) work();
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

}  // extern "C"
