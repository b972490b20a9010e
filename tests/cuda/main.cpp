// The tests of this folder run where there is a device, and say so where there is none.
//
// While a test case runs, what it allocates is memory that host and device share: the cases that the CPU's tests are made of
// run on a device as they are.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

#include <cuda_runtime.h>

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cuda/sharing.hpp>

namespace {

struct alignas(64) origin {
    bool shared;
};

void* allocate(std::size_t bytes) {
    void* p = nullptr;
    const bool shared = on_device::sharing;
    if (shared && cudaMallocManaged(&p, bytes + sizeof(origin)) != cudaSuccess) p = nullptr;
    if (!shared) p = std::malloc(bytes + sizeof(origin));
    if (p == nullptr) throw std::bad_alloc();
    return new (p) origin{shared} + 1;
}
void release(void* p) noexcept {
    if (p == nullptr) return;
    auto* const from = static_cast<origin*>(p) - 1;
    if (from->shared) cudaFree(from);
    else std::free(from);
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }

int main(int argc, char** argv) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::puts("skipped: no device");
        return 0;
    }
    return doctest::Context(argc, argv).run();
}
