// What all of the adapter shares: the tensors of a batch brought to one layout (flat, offsets and a mask, one type),
// and the sentences for tensors that cannot be.
#pragma once

// torch/library.h comes first: clang with libstdc++ refuses LibTorch 1.13's other headers as C++20 without it.
#include <torch/library.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <string>
#include <type_traits>

#include <grpo/grpo.hpp>

namespace grpo::inline v0 {
namespace libtorch {

// How responses fall into groups: groups of one size, or offsets [groups + 1], from 0 to the number of responses.
class grouping {
public:
    grouping(std::int64_t size) : size_(size) {}
    grouping(int size) : size_(size) {}
    grouping(at::Tensor offsets) : offsets_(std::move(offsets)) {}

    // Offsets for so many responses.
    at::Tensor offsets(const char* function, std::int64_t responses) const;

private:
    std::int64_t size_ = 0;
    at::Tensor offsets_;
};

namespace detail {

using grpo::detail::complain;
using grpo::detail::require;

[[noreturn]] inline void refuse(const char* function, const char* name, const char* sentence) {
    grpo::detail::raise(complain(function, name, "%s", sentence));
}

inline std::string sizes_of(const at::Tensor& x) {
    std::string text = "[";
    for (std::int64_t k = 0; k < x.dim(); ++k) text += (k == 0 ? "" : ", ") + std::to_string(x.size(k));
    return text + "]";
}

inline at::TensorOptions made(at::Device device, at::ScalarType type) { return at::TensorOptions(type).device(device); }

// Memory that can be read there: a strided tensor on the device that computes.
inline void check_memory(const char* function, const char* name, const at::Tensor& x, at::Device device = at::kCPU) {
    if (x.device() != device) {
        require(complain(function, name, "is on the device %s, but the adapter computes on %s", x.device().str().c_str(),
                         device.is_cpu() ? "the CPU" : device.str().c_str()));
    }
    if (x.layout() != at::kStrided) refuse(function, name, "is sparse, but must be a strided tensor");
}

inline void check_floating(const char* function, const char* name, const at::Tensor& x, at::Device device = at::kCPU) {
    check_memory(function, name, x, device);
    const auto type = x.scalar_type();
    if (type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf) return;
    require(complain(function, name, "is of type %s, but must be float32, float64, bfloat16 or float16",
                     at::toString(type)));
}

inline void check_not_complex(const char* function, const char* name, const at::Tensor& x, at::Device device = at::kCPU) {
    check_memory(function, name, x, device);
    if (!x.is_complex() && !x.is_quantized()) return;
    require(
        complain(function, name, "is of type %s, but must be of booleans or numbers", at::toString(x.scalar_type())));
}

// Losses differentiate with respect to the policy's outputs alone; a graph behind a constant would be cut in silence.
inline void check_constant(const char* function, const char* name, const at::Tensor& x) {
    if (!at::GradMode::is_enabled() || !x.requires_grad()) return;
    refuse(function, name, "requires a gradient, but is a constant of every loss: detach() it");
}

inline at::Tensor as_integers(const char* function, const char* name, const at::Tensor& x, at::Device device = at::kCPU) {
    if (!x.defined()) refuse(function, name, "is missing, but is needed");
    check_memory(function, name, x, device);
    if (x.scalar_type() != at::kLong && x.scalar_type() != at::kInt) {
        require(complain(function, name, "is of type %s, but must be int32 or int64", at::toString(x.scalar_type())));
    }
    return x.to(at::kLong).contiguous();
}

inline at::Tensor as_offsets(const char* function, const char* name, const at::Tensor& x, at::Device device = at::kCPU) {
    const at::Tensor offsets = as_integers(function, name, x, device);
    if (x.dim() != 1 || x.size(0) < 1) {
        require(complain(function, name, "has the shape %s, but must be [rows + 1]", sizes_of(x).c_str()));
    }
    return offsets;
}

template <class T>
view<const T> read(const at::Tensor& x) {
    if (!x.defined()) return {};
    return {static_cast<const T*>(x.data_ptr()), x.numel()};
}
template <class T>
view<T> write(const at::Tensor& x) {
    return {static_cast<T*>(x.data_ptr()), x.numel()};
}

inline at::ScalarType compute_of(const at::Tensor& x) {
    return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Calls f with a float or a double.
template <class F>
decltype(auto) with_compute(at::ScalarType type, F&& f) {
    if (type == at::kDouble) return f(double{});
    return f(float{});
}

// Where the rows of a batch lie: offsets into flat memory and one byte per position.
struct placement {
    at::Tensor offsets;  // [rows + 1], int64
    at::Tensor mask;     // [positions], bool
    at::Tensor like;     // the tensor that gave the shape
    bool flat = false;   // [n] with cu_seqlens

    std::int64_t rows() const { return offsets.size(0) - 1; }
    std::int64_t positions() const { return mask.size(0); }
    auto shape() const { return ragged(read<std::int64_t>(offsets), positions()).where(read<bool>(mask)); }
    // What counts; from another device it is fetched.
    auto count() const {
        if (mask.is_cpu()) return grpo::count(shape());
        return grpo::count(placement{offsets.cpu(), mask.cpu(), {}, flat}.shape());
    }
    at::Tensor restored(const at::Tensor& x) const { return x.view(like.sizes()); }
};

inline at::Tensor as_mask(const char* function, const at::Tensor& mask, const at::Tensor& like) {
    if (!mask.defined()) return at::ones({like.numel()}, made(like.device(), at::kBool));
    check_not_complex(function, "mask", mask, like.device());
    if (mask.sizes() != like.sizes()) {
        require(complain(function, "mask", "has the shape %s, but the batch has %s", sizes_of(mask).c_str(),
                         sizes_of(like).c_str()));
    }
    return mask.ne(0).contiguous().view({-1});
}

// [rows, width], or [n] with cu_seqlens; `name` is what `like` is called. Offsets of another device are not looked at.
inline placement place(const char* function, const char* name, const at::Tensor& like, const at::Tensor& mask,
                       const at::Tensor& cu_seqlens) {
    placement p;
    p.like = like;
    p.flat = cu_seqlens.defined();
    if (like.dim() != (p.flat ? 1 : 2)) {
        require(complain(function, name, "has the shape %s, but must be %s", sizes_of(like).c_str(),
                         p.flat ? "[tokens] with cu_seqlens" : "[rows, width], or [tokens] with cu_seqlens"));
    }
    if (p.flat) {
        p.offsets = as_offsets(function, "cu_seqlens", cu_seqlens, like.device());
        if (like.is_cpu()) {
            const ragged rows(read<std::int64_t>(p.offsets));
            require(rows.validate(function));
            require(grpo::detail::wrong_size(function, name, like.numel(), rows.extent(), "positions by cu_seqlens"));
        }
    } else {
        p.offsets = at::arange(like.size(0) + 1, made(like.device(), at::kLong)).mul_(like.size(1));
    }
    p.mask = as_mask(function, mask, like);
    return p;
}

// Contiguous, flat and of the compute type; per-sequence tensors ([rows] or [rows, 1]) spread to the tokens.
inline at::Tensor flattened(const char* function, const char* name, const at::Tensor& x, const placement& at_tokens,
                            at::ScalarType type) {
    if (!x.defined()) return x;
    const std::int64_t rows = at_tokens.rows();
    const at::Tensor plain = x.detach().to(type);
    if (x.sizes() == at_tokens.like.sizes()) return plain.contiguous().view({-1});
    const bool column = x.dim() == 2 && x.size(0) == rows && x.size(1) == 1;
    if (!column && !(x.dim() == 1 && x.size(0) == rows)) {
        require(complain(function, name,
                         "has the shape %s, but the batch has %s: neither that, nor one entry for each of "
                         "%lld sequences",
                         sizes_of(x).c_str(), sizes_of(at_tokens.like).c_str(), static_cast<long long>(rows)));
    }
    return plain.contiguous().view({-1}).repeat_interleave(at_tokens.offsets.diff(), 0, at_tokens.positions());
}

}  // namespace detail

inline at::Tensor grouping::offsets(const char* function, std::int64_t responses) const {
    if (offsets_.defined()) {
        const at::Tensor all = detail::as_offsets(function, "group offsets", offsets_);
        const ragged groups(detail::read<std::int64_t>(all));
        detail::require(groups.validate(function));
        detail::require(
            grpo::detail::wrong_size(function, "rewards", responses, groups.extent(), "responses in its groups"));
        return all;
    }
    if (size_ < 1 || responses % size_ != 0) {
        detail::require(detail::complain(function, "group_size", "is %lld, which %lld responses cannot be divided by",
                                         static_cast<long long>(size_), static_cast<long long>(responses)));
    }
    return at::arange(responses / size_ + 1, at::kLong).mul_(size_);
}

}  // namespace libtorch
}  // namespace grpo::inline v0
