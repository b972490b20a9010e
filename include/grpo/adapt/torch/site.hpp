// Where a call computes, and who does: an executor of the host on tensors of the CPU, or one that comes with the tensors of
// another device (see adapt/torch/cuda.hpp).
#pragma once

#include <grpo/adapt/torch/tensors.hpp>

#include <cstdint>
#include <cstring>
#include <utility>

namespace grpo::inline v0 {
namespace libtorch {
namespace detail {

// Such an executor is made for a call: exec.for_tensors(function, name, like) gives a place of work with
//   device()         where the call's tensors are and its memory is made
//   executor(rows)   for calls over so many rows
// which is in use as long as it lives.
template <class Exec>
concept comes_with_tensors = requires(const Exec& exec, const at::Tensor& like) {
    exec.for_tensors("", "", like);
};

template <class Exec>
struct host_site {
    const Exec& exec;

    static at::Device device() { return at::kCPU; }
    const Exec& executor(std::int64_t) const { return exec; }
};

// For a call whose tensor `name` is `like`. An executor of the host outlives it.
template <class Exec>
auto site_of(const char* function, const char* name, const Exec& exec, const at::Tensor& like) {
    if constexpr (comes_with_tensors<Exec>)
        return exec.for_tensors(function, name, like);
    else
        return host_site<Exec>{exec};
}

// What a fold returned, on the host: itself, or brought from where it will be.
inline const loss_result& arrived(at::Device, const loss_result& r) {
    return r;
}
inline loss_result arrived(at::Device device, const loss_result* r) {
    const at::Tensor bytes =
        at::from_blob(const_cast<loss_result*>(r), {static_cast<std::int64_t>(sizeof *r)}, made(device, at::kByte))
            .cpu();
    loss_result here;
    std::memcpy(&here, bytes.data_ptr(), sizeof here);
    return here;
}

}  // namespace detail
}  // namespace libtorch
}  // namespace grpo::inline v0
