// How many lanes walk a row on a device, how many blocks that takes, and what their kernels are told.
#pragma once

#include <cstddef>
#include <cstdint>

#include <grpo/detail/config.hpp>

namespace grpo::inline v0::detail {

// What a plan needs to know of a device.
struct device_facts {
    int device = 0;
    int multiprocessors = 1;
    int capability = 0;  // 10 major + minor
};

// What a lane has of a ring for rows to come (see ahead.cuh): packs of eight in steps of two.
inline constexpr int ring_bytes = 416;
template <class T>
inline constexpr int ring_steps = ring_bytes / (16 * static_cast<int>(sizeof(T)));

inline constexpr int logit_pack = 8;  // neighbours that a lane computes on: of a row of logits
inline constexpr int token_pack = 4;  // of tokens, where a body is for packs
inline constexpr int most_blocks = 8;         // of a cluster
inline constexpr int row_threads = 256;       // of a block
inline constexpr int long_row_threads = 256;  // where they are of logits

// Who walks a row: `lanes` of a block, a power of 2, in each of `blocks` blocks.
struct team_shape {
    int lanes = 1;
    int blocks = 1;
};

struct launch_plan {
    int lanes = 1;
    int blocks = 1;  // per team: a cluster, if more than one
    int threads = 256;
    std::int64_t grid = 1;
    bool ahead = false;     // with a ring
    bool resident = false;  // no more blocks than run at once: teams have many rows each, in a row

    std::size_t shared_bytes() const { return ahead ? static_cast<std::size_t>(threads) * ring_bytes : 0; }
};

inline int power_of_2_from(std::int64_t x, int most) {
    int p = 1;
    while (p < x && p < most) p *= 2;
    return p;
}

inline void set_grid(launch_plan& plan, std::int64_t rows) {
    constexpr std::int64_t most = 1 << 30;
    const std::int64_t in_block = plan.threads / plan.lanes;
    const std::int64_t teams = (rows + in_block - 1) / in_block;
    plan.grid = (teams * plan.blocks < most ? teams : most / plan.blocks) * plan.blocks;
}

// Bodies over tokens: some entries a lane at first, as many as the body likes, then up to a block a row; where whole blocks
// are too few for the device, and the body has no order along the row, a cluster of them.
inline launch_plan plan_rows(const device_facts& facts, std::int64_t rows, std::int64_t entries, bool may_cluster, int per_lane) {
    launch_plan plan;
    const std::int64_t mean = rows > 0 ? entries / rows : 0;
    plan.lanes = power_of_2_from(mean / per_lane, row_threads);
    if (may_cluster && facts.capability >= 90 && plan.lanes == row_threads) {
        const std::int64_t wanted = std::int64_t{2} * facts.multiprocessors;
        while (plan.blocks < most_blocks && rows * plan.blocks * 2 <= wanted && mean / plan.blocks >= 4096) plan.blocks *= 2;
    }
    plan.threads = row_threads;
    set_grid(plan, rows);
    return plan;
}

// Bodies over rows of logits, in packs of eight, two blocks to a multiprocessor. With a ring for rows to come, which devices
// of capability 9.0 and more have the shared memory for: clusters of blocks hold a row together, so that its second pass,
// if there is one, reads no memory. Without: second passes hope for a cache.
inline launch_plan plan_long_rows(const device_facts& facts, std::int64_t rows, std::int64_t columns, std::int64_t packs_in_ring,
                                  bool keeps_rows) {
    launch_plan plan;
    plan.threads = long_row_threads;
    plan.resident = true;
    const std::int64_t packs = columns / 8 + 1;
    plan.lanes = power_of_2_from(packs / 4, plan.threads);
    if (plan.lanes < 32) plan.lanes = 32;
    if (facts.capability >= 90 && packs_in_ring > 0) {
        const std::int64_t wanted = packs_in_ring - packs_in_ring / 4;  // the rest is for what follows
        const std::int64_t wanted_of_block = wanted * plan.lanes;
        if (keeps_rows && plan.lanes == plan.threads) {
            plan.blocks = power_of_2_from((packs + wanted_of_block - 1) / wanted_of_block, most_blocks);
        }
        plan.ahead = !keeps_rows || packs <= (packs_in_ring - 2) * plan.lanes * plan.blocks;
    }
    set_grid(plan, rows);
    return plan;
}

// What a fold needs beside its body, in the caller's workspace: a result a row, and how many blocks are done.
template <class Result, class Total>
struct fold_memory {
    Result* results;
    unsigned* done;
    Total* total;
    bool continued;
};

}  // namespace grpo::inline v0::detail
