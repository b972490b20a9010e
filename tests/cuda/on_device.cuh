// A device for tests.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include <doctest/doctest.h>

#if defined(__CUDACC__)
#include <grpo/exec/cuda.cuh>
#else
#include <grpo/exec/nvrtc.hpp>
#endif

#include <cuda/sharing.hpp>
#include <support/random_batch.hpp>

namespace on_device {

// Who compiles the kernels: nvcc, or NVRTC where another compiler builds the test.
#if defined(__CUDACC__)
using executor = grpo::cuda;
#else
using executor = grpo::nvrtc;
#endif

// Whether there is none, and what it would do is followed by tests/emulator: a thousand times slower.
inline bool emulated() { return std::getenv("GRPO_REAL_NVRTC") != nullptr; }

// The length of a test case.
class session {
public:
    explicit session(std::int64_t rows = 4096) {
        REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess);
        bytes_ = executor::workspace_bytes(rows);
        REQUIRE(cudaMalloc(&workspace_, static_cast<std::size_t>(bytes_)) == cudaSuccess);
        REQUIRE(cudaMallocManaged(&result_, 1024) == cudaSuccess);
        random_batch::arrive = [] { REQUIRE(cudaDeviceSynchronize() == cudaSuccess); };
        sharing = true;
    }
    ~session() {
        sharing = false;
        random_batch::arrive = [] {};
        CHECK(cudaDeviceSynchronize() == cudaSuccess);
        cudaFree(result_);
        cudaFree(workspace_);
        cudaStreamDestroy(stream_);
    }
    session(const session&) = delete;
    session& operator=(const session&) = delete;

    cudaStream_t stream() const { return stream_; }
    grpo::view<std::byte> workspace() const { return {static_cast<std::byte*>(workspace_), bytes_}; }
    // Writes what it returns to memory that the host sees.
    executor gpu() const { return executor(stream_, workspace()).into(static_cast<std::byte*>(result_)); }
    void wait() const { REQUIRE(cudaStreamSynchronize(stream_) == cudaSuccess); }

private:
    cudaStream_t stream_ = nullptr;
    void* workspace_ = nullptr;
    void* result_ = nullptr;
    std::int64_t bytes_ = 0;
};

inline bool close(double a, double b, double tolerance) {
    if (std::isnan(b)) return std::isnan(a);
    if (std::isinf(b)) return a == b;
    return std::abs(a - b) <= tolerance * std::fmax(1.0, std::abs(b));
}
// The first entry that differs by more than the tolerance, or "".
template <class T>
std::string difference(const std::vector<T>& got, const std::vector<T>& expected, double tolerance) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (!close(static_cast<double>(got[i]), static_cast<double>(expected[i]), tolerance)) {
            return "[" + std::to_string(i) + "] " + std::to_string(static_cast<double>(got[i])) +
                   " != " + std::to_string(static_cast<double>(expected[i]));
        }
    }
    return "";
}

}  // namespace on_device
