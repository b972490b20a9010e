// The kernels: bodies on teams, and the fold of what they return. Whole grids walk the rows in turn.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/plan.hpp>
#include <grpo/exec/cuda/team.cuh>

#if defined(__CUDACC__)

namespace grpo::inline v0::detail {

// The team that this thread belongs to, and its number in the grid.
struct place_in_grid {
    std::int64_t team;
    std::int64_t teams;
    int block;  // within the team
};
__device__ inline place_in_grid my_place(const team_shape& shape) {
    // Lanes and blocks are powers of 2: nothing is divided.
    const int log_lanes = 31 - __clz(shape.lanes), log_blocks = 31 - __clz(shape.blocks);
    const int in_block = static_cast<int>(blockDim.x) >> log_lanes;
    const auto group = static_cast<std::int64_t>(blockIdx.x >> log_blocks);
    return {group * in_block + (static_cast<int>(threadIdx.x) >> log_lanes),
            static_cast<std::int64_t>(gridDim.x >> log_blocks) * in_block, static_cast<int>(blockIdx.x) & (shape.blocks - 1)};
}

// How many blocks of row_threads a multiprocessor has at once, at least: what latency wants, unless a body needs the registers.
template <class Body>
consteval int blocks_per_multiprocessor() {
    if constexpr (requires { Body::blocks_per_multiprocessor; }) return Body::blocks_per_multiprocessor;
    return 3;
}

// How many neighbouring tokens a lane computes on.
template <class Body>
consteval int tokens_in_pack() {
    if constexpr (requires { Body::takes_packs; }) return Body::takes_packs ? token_pack : 1;
    return 1;
}

template <class Body>
__global__ void __launch_bounds__(row_threads, blocks_per_multiprocessor<Body>()) walk_rows(const Body body, std::int64_t rows, team_shape shape) {
    using team_type = device_team<tokens_in_pack<Body>()>;
    __shared__ typename team_type::exchange shared;
    const place_in_grid place = my_place(shape);
    team_type team(shared, shape, place.block);
    GRPO_ROLLED for (std::int64_t row = place.team; row < rows; row += place.teams) body(team, row);
}

// Rows of logits: each team has as many, one after the other. Ahead: with a ring in shared memory.
template <bool Clusters, bool Ahead, class Body>
__global__ void __launch_bounds__(long_row_threads, 512 / long_row_threads)
    walk_long_rows(const Body body, std::int64_t rows, team_shape shape) {
    using team_type = device_team<logit_pack, Clusters, Ahead>;
    __shared__ typename team_type::exchange shared;
    const place_in_grid place = my_place(shape);
    team_type team(shared, shape, place.block);
    if (shape.blocks > 1) cluster_barrier();  // every block of the cluster is there
    const std::int64_t first = place.team * rows / place.teams;
    const std::int64_t last = (place.team + 1) * rows / place.teams;
    if constexpr (requires { body.range(team, first, last); }) {
        body.range(team, first, last);
    } else {
        GRPO_ROLLED for (std::int64_t row = first; row < last; ++row) body(team, row);
    }
    if (shape.blocks > 1) cluster_barrier();  // a block's shared memory outlives those who write to it
}

// total += results: by some lanes over consecutive rows each, whose totals are merged in a tree that keeps their order.
template <class Result, class Total, class Add>
__device__ void add_results(const fold_memory<Result, Total>& to, std::int64_t rows, const Add& add) {
    constexpr int most = 64;
    __shared__ alignas(16) unsigned char memory[most * sizeof(Total)];
    Total* const totals = reinterpret_cast<Total*>(memory);
    const int lane = static_cast<int>(threadIdx.x);
    int used = 1;
    while (used < rows && used < most) used *= 2;
    const std::int64_t share = (rows + used - 1) / used;
    if (lane < used) {
        Total mine = lane == 0 && to.continued ? *to.total : Total{};
        const std::int64_t end = (lane + 1) * share < rows ? (lane + 1) * share : rows;
        for (std::int64_t row = lane * share; row < end; ++row) add(mine, to.results[row]);
        totals[lane] = mine;
    }
    for (int half = 1; half < used; half *= 2) {
        __syncthreads();
        if (lane < used && lane % (2 * half) == 0) add.merge(totals[lane], totals[lane + half]);
    }
    if (lane == 0) *to.total = totals[0];
}

template <class Body, class Result, class Total, class Add>
__global__ void __launch_bounds__(row_threads, 512 / row_threads)
    fold_kernel(const Body body, std::int64_t rows, team_shape shape, fold_memory<Result, Total> to, Add add) {
    using team_type = device_team<tokens_in_pack<Body>(), true>;
    __shared__ typename team_type::exchange shared;
    const place_in_grid place = my_place(shape);
    team_type team(shared, shape, place.block);
    static_assert(std::is_same_v<Result, decltype(body(team, rows))>);
    if (shape.blocks > 1) cluster_barrier();
    GRPO_ROLLED for (std::int64_t row = place.team; row < rows; row += place.teams) {
        const Result result = body(team, row);
        if (team.leader()) to.results[row] = result;
    }
    if (shape.blocks > 1) cluster_barrier();
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(to.done, 1u) == gridDim.x - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    add_results(to, rows, add);
    if (threadIdx.x == 0) *to.done = 0;
}

}  // namespace grpo::inline v0::detail

#endif
