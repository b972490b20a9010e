// The kernels: bodies on teams, and the fold of what they return. Whole grids walk the rows in turn.
#pragma once

#include <cstdint>

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
    const auto threads = static_cast<int>(blockDim.x);
    const int in_block = threads / shape.lanes;
    const auto group = static_cast<std::int64_t>(blockIdx.x) / shape.blocks;
    return {group * in_block + static_cast<int>(threadIdx.x) / shape.lanes,
            static_cast<std::int64_t>(gridDim.x) / shape.blocks * in_block, static_cast<int>(blockIdx.x) % shape.blocks};
}

template <class Body>
__global__ void __launch_bounds__(row_threads) walk_rows(const Body body, std::int64_t rows, team_shape shape) {
    using team_type = device_team<1>;
    __shared__ typename team_type::exchange shared;
    const place_in_grid place = my_place(shape);
    team_type team(shared, shape, place.block);
    for (std::int64_t row = place.team; row < rows; row += place.teams) body(team, row);
}

// Rows of logits: each team has as many, one after the other. Ahead: with a ring in shared memory.
template <bool Clusters, bool Ahead, class Body>
__global__ void __launch_bounds__(long_row_threads, 512 / long_row_threads) walk_long_rows(const Body body, std::int64_t rows, team_shape shape) {
    using team_type = device_team<8, Clusters, Ahead>;
    __shared__ typename team_type::exchange shared;
    const place_in_grid place = my_place(shape);
    team_type team(shared, shape, place.block);
    if (shape.blocks > 1) cluster_barrier();  // every block of the cluster is there
    const std::int64_t first = place.team * rows / place.teams;
    const std::int64_t last = (place.team + 1) * rows / place.teams;
    if constexpr (requires { body.range(team, first, last); }) {
        body.range(team, first, last);
    } else {
        for (std::int64_t row = first; row < last; ++row) body(team, row);
    }
    if (shape.blocks > 1) cluster_barrier();  // a block's shared memory outlives those who write to it
}

// What a fold needs beside its body, in the caller's workspace: a result a row, and how many blocks are done.
template <class Result, class Total>
struct fold_memory {
    Result* results;
    unsigned* done;
    Total* total;
    bool continued;
};

// total += results, in the order of the rows: by one lane while they are few, to which all bring them; else by some lanes
// over consecutive rows each.
template <class Result, class Total, class Add>
__device__ void add_results(const fold_memory<Result, Total>& to, std::int64_t rows, const Add& add) {
    constexpr int helpers = 64;
    constexpr std::int64_t few = 256;
    constexpr int tile = 16384 / static_cast<int>(sizeof(Result));
    constexpr std::size_t bytes = helpers * sizeof(Total) > tile * sizeof(Result) ? helpers * sizeof(Total) : tile * sizeof(Result);
    __shared__ alignas(16) unsigned char memory[bytes];
    const int lane = static_cast<int>(threadIdx.x);
    Total mine = lane == 0 && to.continued ? *to.total : Total{};
    if (rows <= few) {
        Result* const results = reinterpret_cast<Result*>(memory);
        for (std::int64_t first = 0; first < rows; first += tile) {
            const int count = static_cast<int>(rows - first < tile ? rows - first : tile);
            for (int k = lane; k < count; k += static_cast<int>(blockDim.x)) results[k] = to.results[first + k];
            __syncthreads();
            for (int k = 0; lane == 0 && k < count; ++k) add(mine, results[k]);
            __syncthreads();
        }
        if (lane == 0) *to.total = mine;
        return;
    }
    Total* const totals = reinterpret_cast<Total*>(memory);
    const int used = helpers < static_cast<int>(blockDim.x) ? helpers : static_cast<int>(blockDim.x);
    const std::int64_t share = (rows + used - 1) / used;
    if (lane < used) {
        const std::int64_t end = (lane + 1) * share < rows ? (lane + 1) * share : rows;
        for (std::int64_t row = lane * share; row < end; ++row) add(mine, to.results[row]);
        totals[lane] = mine;
    }
    __syncthreads();
    if (lane > 0) return;
    for (int k = 1; k < used; ++k) add.merge(mine, totals[k]);
    *to.total = mine;
}

template <class Body, class Result, class Total, class Add>
__global__ void __launch_bounds__(fold_threads)
    fold_kernel(const Body body, std::int64_t rows, team_shape shape, fold_memory<Result, Total> to, Add add) {
    using team_type = device_team<1, true>;
    __shared__ typename team_type::exchange shared;
    const place_in_grid place = my_place(shape);
    team_type team(shared, shape, place.block);
    if (shape.blocks > 1) cluster_barrier();
    for (std::int64_t row = place.team; row < rows; row += place.teams) {
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
