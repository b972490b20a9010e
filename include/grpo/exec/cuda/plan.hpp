// How many lanes walk a row on a device, and how many blocks that takes.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>

namespace grpo::inline v0::detail {

// What a plan needs to know of a device.
struct device_facts {
    int device = 0;
    int multiprocessors = 1;
    int capability = 0;  // 10 major + minor
};

struct launch_plan {
    int lanes = 1;
    int blocks = 1;  // per team: a cluster, if more than one
    int threads = 256;
    std::int64_t grid = 1;
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

// Bodies over tokens: about four entries a lane at first, then up to a block a row; where whole blocks are too few for the
// device, and the body has no order along the row, a cluster of them.
inline launch_plan plan_rows(const device_facts& facts, std::int64_t rows, std::int64_t entries, bool may_cluster) {
    launch_plan plan;
    const std::int64_t mean = rows > 0 ? entries / rows : 0;
    plan.lanes = power_of_2_from(mean / 4, may_cluster ? 512 : 1024);
    if (may_cluster && facts.capability >= 90 && plan.lanes == 512) {
        const std::int64_t wanted = std::int64_t{2} * facts.multiprocessors;
        while (plan.blocks < 8 && rows * plan.blocks * 2 <= wanted && mean / plan.blocks >= 4096) plan.blocks *= 2;
    }
    plan.threads = plan.lanes > 256 ? plan.lanes : 256;
    set_grid(plan, rows);
    return plan;
}

// Bodies over rows of logits, in packs of eight: clusters keep few enough rows under way that a second pass finds them in
// the cache.
inline launch_plan plan_long_rows(const device_facts& facts, std::int64_t rows, std::int64_t mean, bool reads_again) {
    launch_plan plan;
    const std::int64_t packs = mean / 8;
    plan.lanes = power_of_2_from(packs / 4, 512);
    if (plan.lanes < 32) plan.lanes = 32;
    if (reads_again && facts.capability >= 90) plan.blocks = power_of_2_from(packs / 4096, 8);
    plan.threads = plan.lanes > 256 || plan.blocks > 1 ? plan.lanes : 256;
    set_grid(plan, rows);
    return plan;
}

}  // namespace grpo::inline v0::detail
