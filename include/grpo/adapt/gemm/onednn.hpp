// Matrix products by oneDNN, which itself chooses among the processor's instructions (AMX, AVX-512 with bfloat16,
// AVX2). Component `onednn` (grpo::onednn); oneDNN 2.6 or newer, on the CPU.
//
// oneDNN uses threads of its own (OpenMP in Debian's build): where an executor's threads call it, each of them should
// allow one, by omp_set_num_threads(1) or OMP_NUM_THREADS=1 in the environment, before its first product.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <dnnl.hpp>

#include <grpo/detail/check.hpp>
#include <grpo/head/gemm.hpp>
#include <grpo/storage.hpp>

namespace grpo::inline v0 {

// bfloat16 × bfloat16 -> float or bfloat16, and float × float -> float, summed in float; beta is 0 or 1. The first product of
// a shape prepares it on each calling thread, later ones only look it up; an object and its copies share what they have
// prepared, and keep it.
// Each calling thread keeps the scratch memory that its greatest product needed. Errors: negative sizes, a stride below
// a row's length, null pointers, another beta, a processor for which oneDNN has no product of this type (bfloat16 needs
// AVX-512 in oneDNN 2.6). O(m n k).
struct onednn_gemm {
    onednn_gemm() : shared_(std::make_shared<shared>()) {}

    template <class T, class C>
        requires(std::same_as<C, float> || std::same_as<C, T>) && (std::same_as<T, float> || std::same_as<T, bfloat16>)
    void multiply(std::int64_t m, std::int64_t n, std::int64_t k, operand<T> a, operand<T> b, float beta, C* c,
                  std::int64_t stride_c) const {
        constexpr bool halves = std::same_as<T, bfloat16>;
        detail::require(detail::check_product("onednn_gemm", m, n, k, a, b, c, stride_c));
        if (beta != 0.0f && beta != 1.0f) {
            detail::raise(detail::complain("onednn_gemm", "beta", "is %g, but must be %g or %g",
                                           static_cast<double>(beta), 0.0, 1.0));
        }
        if (m == 0 || n == 0) return;
        if (k == 0) {
            for (std::int64_t i = 0; beta == 0.0f && i < m; ++i) {
                for (std::int64_t j = 0; j < n; ++j) c[i * stride_c + j] = C(0.0f);
            }
            return;
        }
        const std::int64_t apart_a = stride(a.stride, a.transposed ? m : k);
        const std::int64_t apart_b = stride(b.stride, b.transposed ? k : n);
        const key wanted{m, n, k, apart_a, a.transposed, apart_b, b.transposed, stride(stride_c, n),
                         beta == 1.0f, halves, std::same_as<C, bfloat16>};
        execute(prepared(wanted), a.data, b.data, c);
    }

private:
    // What a prepared product depends on.
    enum part { rows, columns, depth, stride_a, turned_a, stride_b, turned_b, stride_of_c, adds, in_bfloat16, to_bfloat16, parts };
    using key = std::array<std::int64_t, parts>;
    struct product {
        dnnl::matmul::primitive_desc plan;
        dnnl::matmul run;
    };
    struct shared {
        dnnl::engine engine{dnnl::engine::kind::cpu, 0};
        std::mutex mutex;
        std::map<std::pair<std::thread::id, key>, product> products;
    };

    // The stride of the only row, or of none, has no meaning, but oneDNN asks for a row's length.
    static std::int64_t stride(std::int64_t given, std::int64_t length) { return given < length ? length : given; }

    static dnnl::memory::desc describe(std::int64_t height, std::int64_t width, dnnl::memory::data_type type,
                                       std::int64_t stride, bool transposed) {
        using dims = dnnl::memory::dims;
        return {dims{height, width}, type, transposed ? dims{1, stride} : dims{stride, 1}};
    }

    static dnnl::matmul::primitive_desc plan(const dnnl::engine& engine, const key& x) {
        using type = dnnl::memory::data_type;
        const type storage = x[in_bfloat16] != 0 ? type::bf16 : type::f32;
        const auto a = describe(x[rows], x[depth], storage, x[stride_a], x[turned_a] != 0);
        const auto b = describe(x[depth], x[columns], storage, x[stride_b], x[turned_b] != 0);
        const auto c = describe(x[rows], x[columns], x[to_bfloat16] != 0 ? type::bf16 : type::f32, x[stride_of_c], false);
        dnnl::primitive_attr how;
        // A caller's scratch memory: with the library's own, one product could not run on two threads at once.
        how.set_scratchpad_mode(dnnl::scratchpad_mode::user);
        if (x[adds] != 0) {
            dnnl::post_ops after;
            after.append_sum(1.0f);
            how.set_post_ops(after);
        }
#if DNNL_VERSION_MAJOR >= 3
        return {engine, a, b, c, how, true};
#else
        return {dnnl::matmul::desc(a, b, c), how, engine, true};
#endif
    }

    const product& prepared(const key& wanted) const {
        const std::lock_guard lock(shared_->mutex);
        // By thread as well: what oneDNN prepares is for the number of threads that the calling one allows.
        const std::pair at(std::this_thread::get_id(), wanted);
        const auto found = shared_->products.find(at);
        if (found != shared_->products.end()) return found->second;
        const dnnl::matmul::primitive_desc planned = plan(shared_->engine, wanted);
        if (!planned) {
            detail::raise(detail::complain(
                "onednn_gemm", "a", "is %s, of which oneDNN %d.%d has no product on this processor",
                wanted[in_bfloat16] != 0 ? "bfloat16" : "float", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR));
        }
        return shared_->products.emplace(at, product{planned, dnnl::matmul(planned)}).first->second;
    }

    void execute(const product& x, const void* a, const void* b, void* c) const {
        thread_local std::vector<std::byte> scratch;
        const auto needed = x.plan.scratchpad_desc().get_size();
        if (scratch.size() < needed) scratch.resize(needed);
        const auto memory = [&](const dnnl::memory::desc& desc, const void* data) {
            return dnnl::memory(desc, shared_->engine, const_cast<void*>(data));
        };
        dnnl::stream stream(shared_->engine);
        x.run.execute(stream, {{DNNL_ARG_SRC, memory(x.plan.src_desc(), a)},
                               {DNNL_ARG_WEIGHTS, memory(x.plan.weights_desc(), b)},
                               {DNNL_ARG_DST, memory(x.plan.dst_desc(), c)},
                               {DNNL_ARG_SCRATCHPAD, memory(x.plan.scratchpad_desc(), scratch.data())}});
        stream.wait();
    }

    std::shared_ptr<shared> shared_;
};

}  // namespace grpo::inline v0
