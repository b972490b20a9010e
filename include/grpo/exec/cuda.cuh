// Rows on an NVIDIA GPU.
//
//   grpo::cuda gpu(stream, workspace);                       // device memory of the caller's: cuda::workspace_bytes(rows)
//   const grpo::loss_result* r = grpo::evaluate(gpu.into(result), loss, batch, n, grpo::d_logp(gradient));
//
// Views hold device pointers. Everything is enqueued on the stream: nothing is allocated, nothing waits, and a stream that is
// being captured may be used. What functions return on the host is written to device memory, and its address is returned: the
// address given with into(), or one in the workspace, valid until the next call. Level: the same bits from run to run (fixed
// trees, no atomic floats); sums differ from serial's by rounding.
//
// Compiled by nvcc with -std=c++20 and no other flag, for sm_75 and newer; clusters of blocks from sm_90 on. What lies in
// device memory is not looked at beforehand: a target outside the vocabulary has the log-probability -inf, offsets of ragged()
// come with their extent, and rewards may not hold NaN where they count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <utility>

#include <cuda_runtime_api.h>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/kernels.cuh>
#include <grpo/exec/cuda/plan.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {
namespace detail {

inline problem cuda_problem(const char* function, const char* what, cudaError_t code) {
    if (code == cudaSuccess) return {};
    return complain(function, what, "failed: %s (%lld)", cudaGetErrorString(code), static_cast<long long>(code));
}

// The device in use; sm_75 at least.
inline device_facts current_device() {
    device_facts facts;
    int major = 0;
    int minor = 0;
    require(cuda_problem("cuda", "cudaGetDevice", cudaGetDevice(&facts.device)));
    require(cuda_problem("cuda", "cudaDeviceGetAttribute",
                         cudaDeviceGetAttribute(&facts.multiprocessors, cudaDevAttrMultiProcessorCount, facts.device)));
    require(cuda_problem("cuda", "cudaDeviceGetAttribute",
                         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, facts.device)));
    require(cuda_problem("cuda", "cudaDeviceGetAttribute",
                         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, facts.device)));
    facts.capability = 10 * major + minor;
    if (facts.capability < 75) {
        require(complain("cuda", "device", "has compute capability %d.%d, but at least 7.5 is needed", major, minor));
    }
    return facts;
}

inline problem check_stream([[maybe_unused]] cudaStream_t stream, [[maybe_unused]] int device) {
#if CUDART_VERSION >= 12080
    if (stream == nullptr) return {};
    int of_stream = device;
    if (const problem p = cuda_problem("cuda", "cudaStreamGetDevice", cudaStreamGetDevice(stream, &of_stream))) return p;
    if (of_stream != device) {
        return complain("cuda", "stream", "is one of device %d, but device %d is in use", of_stream, device);
    }
#endif
    return {};
}

// How many clusters of blocks (or blocks) of a kernel a device runs at once: asked once for each.
template <class Kernel>
int clusters_at_once(const cudaLaunchConfig_t& config, Kernel* kernel, const launch_plan& plan, int device) {
    static std::mutex guard;
    static std::map<std::tuple<Kernel*, int, int, int>, int> known;
    const std::lock_guard lock(guard);
    int& count = known[{kernel, device, plan.threads, plan.blocks}];
    if (count > 0) return count;
    if (plan.blocks > 1) {
        require(cuda_problem("cuda", "cudaOccupancyMaxActiveClusters", cudaOccupancyMaxActiveClusters(&count, kernel, &config)));
    } else {
        int multiprocessors = 0;
        require(cuda_problem("cuda", "cudaDeviceGetAttribute",
                             cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)));
        require(cuda_problem("cuda", "cudaOccupancyMaxActiveBlocksPerMultiprocessor",
                             cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, kernel, plan.threads,
                                                                           config.dynamicSmemBytes)));
        count *= multiprocessors;
    }
    if (count == 0) require(complain("cuda", "device", "%d cannot run clusters of %d blocks", device, plan.blocks));
    return count;
}

template <class Kernel, class... Arguments>
void launch(cudaStream_t stream, const launch_plan& plan, int device, Kernel* kernel, const Arguments&... arguments) {
    cudaLaunchConfig_t config{};
    if (plan.ahead) {
        config.dynamicSmemBytes = static_cast<std::size_t>(plan.threads) * ring_bytes;
        require(cuda_problem("cuda", "cudaFuncSetAttribute",
                             cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  static_cast<int>(config.dynamicSmemBytes))));
    }
    config.gridDim = dim3(static_cast<unsigned>(plan.grid));
    config.blockDim = dim3(static_cast<unsigned>(plan.threads));
    config.stream = stream;
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(plan.blocks);
    cluster.val.clusterDim.y = 1;
    cluster.val.clusterDim.z = 1;
    config.attrs = &cluster;
    config.numAttrs = plan.blocks > 1 ? 1 : 0;
    if (plan.resident) {
        const auto most = static_cast<unsigned>(clusters_at_once(config, kernel, plan, device) * plan.blocks);
        if (config.gridDim.x > most) config.gridDim.x = most;
    }
    require(cuda_problem("cuda", "the launch of a kernel", cudaLaunchKernelEx(&config, kernel, arguments...)));
}

}  // namespace detail

class cuda {
public:
    static constexpr bool host_memory = false;

    // On the device in use, whose stream it is. The workspace serves one call at a time.
    explicit cuda(cudaStream_t stream, view<std::byte> workspace)
        : stream_(stream), workspace_(workspace), facts_(detail::current_device()) {
        detail::require(detail::check_stream(stream, facts_.device));
        detail::require(room(0));
        detail::require(reach("cuda", "workspace", workspace.data()));
        detail::require(detail::cuda_problem("cuda", "cudaMemsetAsync", cudaMemsetAsync(workspace.data(), 0, header, stream)));
    }

    // Enough for a call over so many rows (sequences, groups or pieces of them).
    static std::int64_t workspace_bytes(std::int64_t rows) { return header + 512 * rows; }

    // The same, writing what it returns to `result`; onto(): adding to what is there, as accumulate() does.
    template <class Total>
    cuda into(Total* result) const {
        cuda other = *this;
        other.result_ = result;
        other.continued_ = false;
        return other;
    }
    template <class Total>
    cuda onto(Total* result) const {
        cuda other = into(result);
        other.continued_ = true;
        return other;
    }

    // With results in the workspace again.
    cuda aside() const { return into(static_cast<std::byte*>(nullptr)); }

    cudaStream_t stream() const { return stream_; }
    static constexpr int size() { return 0; }  // bodies have no memory of their own

    // body(team, row) for every row.
    template <class Body>
    void teams(std::int64_t rows, const Body& body) const {
        if (rows <= 0) return;
        if constexpr (requires { Body::long_rows; }) {
            walk_long(body);
        } else {
            run(detail::plan_rows(facts_, rows, entries_of(body), false, per_lane<Body>()), detail::walk_rows<Body>, body, rows);
        }
    }

    // add(total, body(team, row)) over all rows, in one kernel: where the total will be.
    template <class Total, class Body, class Add>
    const Total* fold(std::int64_t rows, const Body& body, const Add& add) const {
        using result = decltype(body(std::declval<device_team<1>&>(), std::int64_t{}));
        static_assert(std::is_trivially_copyable_v<result> && std::is_trivially_copyable_v<Total>);
        static_assert(sizeof(result) <= 512 && sizeof(Total) <= header - 64);
        detail::require(room(rows));
        Total* const total = result_ != nullptr ? static_cast<Total*>(result_)
                                                : reinterpret_cast<Total*>(workspace_.data() + 64);
        const detail::fold_memory<result, Total> memory{reinterpret_cast<result*>(workspace_.data() + header),
                                                        reinterpret_cast<unsigned*>(workspace_.data()), total,
                                                        continued_ && result_ != nullptr};
        const auto plan = detail::plan_rows(facts_, rows > 0 ? rows : 1, entries_of(body), true, per_lane<Body>());
        run(plan, detail::fold_kernel<Body, result, Total, Add>, body, rows, memory, add);
        return total;
    }

    // What is wrong with a pointer that kernels are to follow.
    problem reach(const char* function, const char* argument, const void* p) const {
        cudaPointerAttributes at{};
        if (const problem wrong = detail::cuda_problem(function, argument, cudaPointerGetAttributes(&at, p))) return wrong;
        if (at.type == cudaMemoryTypeUnregistered) {
            return detail::complain(function, argument, "points into host memory, but device %d is to read or write it",
                                    facts_.device);
        }
        if (at.type == cudaMemoryTypeDevice && at.device != facts_.device) {
            return detail::complain(function, argument, "points into device %d, but device %d is in use", at.device,
                                    facts_.device);
        }
        return {};
    }

private:
    static constexpr std::int64_t header = 1024;  // a counter, and a total

    problem room(std::int64_t rows) const {
        const std::int64_t needed = workspace_bytes(rows);
        if (workspace_.size() < needed) {
            return detail::complain("cuda", "workspace", "has %lld bytes, but %lld are needed",
                                    static_cast<long long>(workspace_.size()), static_cast<long long>(needed));
        }
        return detail::null_pointer("cuda", "workspace", workspace_.data(), needed);
    }
    template <class Body>
    static std::int64_t entries_of(const Body& body) {
        if constexpr (requires { body.entries(); }) return body.entries();
        return 0;
    }
    template <class Body>
    static bool writes_packs(const Body& body) {
        if constexpr (requires { body.writes_packs(); }) return body.writes_packs();
        return true;
    }
    template <class Body>
    static consteval int per_lane() {
        if constexpr (requires { Body::entries_per_lane; }) return Body::entries_per_lane;
        return 4;
    }
    // Rows that are never kept need no cluster.
    template <class Body>
    static consteval bool may_keep_rows() {
        if constexpr (requires { typename std::bool_constant<Body::keeps_rows()>; }) return Body::keeps_rows();
        return true;
    }
    template <class Body>
    void walk_long(const Body& body) const {
        const std::int64_t rows = body.from.in.rows;
        const std::int64_t columns = body.from.in.vocabulary;
        using storage = typename decltype(body.from)::storage;
        // What is rarer than plain logits compiles to less.
        constexpr bool plain = decltype(body.from)::row_type::reading_type::plain;
        if constexpr (requires { body.keeps_rows(); } && plain && sizeof(storage) <= 4) {
            constexpr std::int64_t packs = 2 * detail::ring_steps<storage>;
            auto plan = detail::plan_long_rows(facts_, rows, columns, packs, body.keeps_rows());
            plan.ahead = plan.ahead && writes_packs(body);
            constexpr bool clusters = may_keep_rows<Body>();
            if (plan.ahead) return run(plan, detail::walk_long_rows<clusters, true, Body>, body, rows);
            run(plan, detail::walk_long_rows<clusters, false, Body>, body, rows);
        } else {
            run(detail::plan_long_rows(facts_, rows, columns, 0, false), detail::walk_long_rows<false, false, Body>, body, rows);
        }
    }
    template <class Kernel, class Body, class... More>
    void run(const detail::launch_plan& plan, Kernel* kernel, const Body& body, std::int64_t rows, const More&... more) const {
        detail::launch(stream_, plan, facts_.device, kernel, body, rows, detail::team_shape{plan.lanes, plan.blocks}, more...);
    }

    cudaStream_t stream_;
    view<std::byte> workspace_;
    detail::device_facts facts_;
    void* result_ = nullptr;
    bool continued_ = false;
};

}  // namespace grpo::inline v0
