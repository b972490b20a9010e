// What is not a loss, on the other executors of the host's memory: serial's results.
#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>
#include <grpo/exec/threads.hpp>
#include <grpo/grpo.hpp>

namespace {

template <class F>
void on_each_executor(F&& f) {
    f(grpo::simd{})();
    f(grpo::threads<>(3))();
    f(grpo::threads<grpo::simd>(2))();
}

}  // namespace

#include <support/core_cases.hpp>
