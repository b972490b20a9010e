// The executor of an NVIDIA GPU, whoever compiles and launches its kernels: cuda (see cuda.cuh) and nvrtc (see nvrtc.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <utility>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/ahead.cuh>
#include <grpo/exec/cuda/plan.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {
namespace detail {

// Where memory lies, besides the number of a device.
inline constexpr int every_device = -1;  // managed, or the host's and mapped
inline constexpr int host_memory_alone = -2;

// Kernels by the names and arguments that they have in kernels.cuh.
namespace kernels {
template <class Body>
struct walk_rows {};
template <bool Clusters, bool Ahead, class Body>
struct walk_long_rows {};
template <class Body, class Result, class Total, class Add>
struct fold_kernel {};
}  // namespace kernels

}  // namespace detail

// A Runtime launches kernels:
//
//   name, stream_type                            for sentences; a stream
//   device() -> device_facts                     the device in use
//   device_of(stream, in_use)                    whose a stream is
//   locate(function, argument, p, device)        where memory lies (see every_device), or the problem with asking
//   clear(stream, p, bytes)                      zeros
//   clusters_at_once(plan, facts, kernel, arguments...)    how many clusters of plan.blocks blocks (or blocks) run at once
//   launch(stream, plan, facts, kernel, arguments...)
//
// and raises what else goes wrong.
template <class Runtime>
class device_executor {
public:
    static constexpr bool host_memory = false;

    using stream_type = typename Runtime::stream_type;

    // On the device in use, whose stream it is. The workspace serves one call at a time.
    explicit device_executor(stream_type stream, view<std::byte> workspace, const Runtime& runtime = {})
        : runtime_(runtime), stream_(stream), workspace_(workspace), facts_(runtime_.device()) {
        const char* const name = Runtime::name;
        if (facts_.capability < 75) {
            detail::require(detail::complain(name, "device", "has compute capability %d.%d, but at least 7.5 is needed",
                                             facts_.capability / 10, facts_.capability % 10));
        }
        const int of_stream = runtime_.device_of(stream, facts_.device);
        if (of_stream != facts_.device) {
            detail::require(detail::complain(name, "stream", "is one of device %d, but device %d is in use", of_stream,
                                             facts_.device));
        }
        detail::require(room(0));
        detail::require(reach(name, "workspace", workspace.data()));
        runtime_.clear(stream, workspace.data(), header);
    }

    // Enough for a call over so many rows (sequences, groups or pieces of them).
    static std::int64_t workspace_bytes(std::int64_t rows) { return header + 512 * rows; }

    // The same, writing what it returns to `result`; onto(): adding to what is there, as accumulate() does.
    template <class Total>
    device_executor into(Total* result) const {
        device_executor other = *this;
        other.result_ = result;
        other.continued_ = false;
        return other;
    }
    template <class Total>
    device_executor onto(Total* result) const {
        device_executor other = into(result);
        other.continued_ = true;
        return other;
    }

    // With results in the workspace again.
    device_executor aside() const { return into(static_cast<std::byte*>(nullptr)); }

    stream_type stream() const { return stream_; }
    static constexpr int size() { return 0; }  // bodies have no memory of their own

    // body(team, row) for every row.
    template <class Body>
    void teams(std::int64_t rows, const Body& body) const {
        if (rows <= 0) return;
        if constexpr (requires { Body::long_rows; }) {
            walk_long(body);
        } else {
            const auto plan = detail::plan_rows(facts_, rows, entries_of(body), false, per_lane<Body>());
            run(plan, detail::kernels::walk_rows<Body>{}, body, rows);
        }
    }

    // add(total, body(team, row)) over all rows, in one kernel: where the total will be.
    template <class Total, class Body, class Add>
    const Total* fold(std::int64_t rows, const Body& body, const Add& add) const {
        using result = decltype(body(std::declval<serial_team&>(), std::int64_t{}));
        static_assert(std::is_trivially_copyable_v<result> && std::is_trivially_copyable_v<Total>);
        static_assert(sizeof(result) <= 512 && sizeof(Total) <= header - 64);
        detail::require(room(rows));
        Total* const total =
            result_ != nullptr ? static_cast<Total*>(result_) : reinterpret_cast<Total*>(workspace_.data() + 64);
        const detail::fold_memory<result, Total> memory{reinterpret_cast<result*>(workspace_.data() + header),
                                                        reinterpret_cast<unsigned*>(workspace_.data()), total,
                                                        continued_ && result_ != nullptr};
        const auto plan = detail::plan_rows(facts_, rows > 0 ? rows : 1, entries_of(body), true, per_lane<Body>());
        run(plan, detail::kernels::fold_kernel<Body, result, Total, Add>{}, body, rows, memory, add);
        return total;
    }

    // What is wrong with a pointer that kernels are to follow.
    problem reach(const char* function, const char* argument, const void* p) const {
        int where = facts_.device;
        if (const problem wrong = runtime_.locate(function, argument, p, where)) return wrong;
        if (where == detail::host_memory_alone) {
            return detail::complain(function, argument, "points into host memory, but device %d is to read or write it",
                                    facts_.device);
        }
        if (where != detail::every_device && where != facts_.device) {
            return detail::complain(function, argument, "points into device %d, but device %d is in use", where,
                                    facts_.device);
        }
        return {};
    }

private:
    static constexpr std::int64_t header = 1024;  // a counter, and a total

    problem room(std::int64_t rows) const {
        const std::int64_t needed = workspace_bytes(rows);
        if (workspace_.size() < needed) {
            return detail::complain(Runtime::name, "workspace", "has %lld bytes, but %lld are needed",
                                    static_cast<long long>(workspace_.size()), static_cast<long long>(needed));
        }
        return detail::null_pointer(Runtime::name, "workspace", workspace_.data(), needed);
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
            if (plan.ahead) return run(plan, detail::kernels::walk_long_rows<clusters, true, Body>{}, body, rows);
            run(plan, detail::kernels::walk_long_rows<clusters, false, Body>{}, body, rows);
        } else {
            const auto plan = detail::plan_long_rows(facts_, rows, columns, 0, false);
            run(plan, detail::kernels::walk_long_rows<false, false, Body>{}, body, rows);
        }
    }
    // How many blocks of a kernel run at once, in whole clusters: asked once for each.
    template <class Kernel, class... Arguments>
    std::int64_t blocks_at_once(const detail::launch_plan& plan, Kernel kernel, const Arguments&... arguments) const {
        static std::mutex guard;
        static std::map<std::tuple<int, int, int, bool>, int> known;
        const std::lock_guard lock(guard);
        int& clusters = known[{facts_.device, plan.threads, plan.blocks, plan.ahead}];
        if (clusters == 0) clusters = runtime_.clusters_at_once(plan, facts_, kernel, arguments...);
        if (clusters == 0) {
            detail::require(detail::complain(Runtime::name, "device", "%d cannot run clusters of %d blocks", facts_.device,
                                             plan.blocks));
        }
        return std::int64_t{clusters} * plan.blocks;
    }
    template <class Kernel, class Body, class... More>
    void run(detail::launch_plan plan, Kernel kernel, const Body& body, std::int64_t rows, const More&... more) const {
        const detail::team_shape shape{plan.lanes, plan.blocks};
        if (plan.resident) {
            const std::int64_t most = blocks_at_once(plan, kernel, body, rows, shape, more...);
            if (plan.grid > most) plan.grid = most;
        }
        runtime_.launch(stream_, plan, facts_, kernel, body, rows, shape, more...);
    }

    Runtime runtime_;
    stream_type stream_;
    view<std::byte> workspace_;
    detail::device_facts facts_;
    void* result_ = nullptr;
    bool continued_ = false;
};

}  // namespace grpo::inline v0
