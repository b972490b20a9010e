// Pieces of work on several threads. A piece is computed by one thread, so results do not depend on how many there are.
#pragma once

#include <torch/library.h>

#include <ATen/Parallel.h>

#include <dlfcn.h>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>

#include <grpo/exec/threads.hpp>

namespace calculator {

class workers {
public:
    explicit workers(int threads) : pool_(threads) {
        at::set_num_threads(1);
        // LibTorch multiplies matrices with the system's BLAS, whose own threads would get into each other's way.
        if (void* const set = ::dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))
            reinterpret_cast<void (*)(int)>(set)(1);
    }

    int size() const { return pool_.size(); }

    // piece(k) for k = 0 .. count - 1, in any order; the first exception comes out here.
    template <class F>
    void each(std::size_t count, const F& piece) {
        std::atomic<std::size_t> next{0};
        std::exception_ptr failed;
        std::mutex guard;
        pool_.run([&](int) {
            try {
                for (std::size_t k = next++; k < count; k = next++) piece(k);
            } catch (...) {
                next = count;
                const std::lock_guard lock(guard);
                if (!failed) failed = std::current_exception();
            }
        });
        if (failed) std::rethrow_exception(failed);
    }

private:
    grpo::thread_pool pool_;
};

}  // namespace calculator
