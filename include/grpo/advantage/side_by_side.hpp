// Eight groups of one size at a time: member by member, the groups in the lanes of plain loops that compilers turn into
// vector code. The same numbers as one group after another, to the last bit, because the sums leave nothing to round.
#pragma once

#include <cstdint>

#include <grpo/advantage/normalise.hpp>
#include <grpo/detail/config.hpp>

namespace grpo::inline v0::detail {

struct eight_groups {
    static constexpr int lanes = 8;
    static constexpr std::int64_t largest = 64;  // members a group

    double x[largest][lanes];  // not initialised: load() fills what is used
    double least[lanes];
    double greatest[lanes];
    double mean[lanes];
    double m2[lanes];

    // Groups of n members each, the first at r, `stride` entries apart.
    template <class T>
    GRPO_HD void load(const T* r, std::int64_t n, std::int64_t stride) {
        for (std::int64_t j = 0; j < n; ++j) {
            for (int k = 0; k < lanes; ++k) x[j][k] = static_cast<double>(r[k * stride + j]);
        }
        for (int k = 0; k < lanes; ++k) least[k] = greatest[k] = x[0][k];
        for (std::int64_t j = 1; j < n; ++j) {
            for (int k = 0; k < lanes; ++k) least[k] = x[j][k] < least[k] ? x[j][k] : least[k];
            for (int k = 0; k < lanes; ++k) greatest[k] = greatest[k] < x[j][k] ? x[j][k] : greatest[k];
        }
    }

    // Mean, shifted by the least member, then the squares about it.
    GRPO_HD void measure(std::int64_t n) {
        const double count = static_cast<double>(n);
        double grid[lanes];
        double sum[lanes] = {};
        for (int k = 0; k < lanes; ++k) grid[k] = grid_for(greatest[k] - least[k], count);
        for (std::int64_t j = 0; j < n; ++j) {
            for (int k = 0; k < lanes; ++k) sum[k] += ((x[j][k] - least[k]) + grid[k]) - grid[k];
        }
        for (int k = 0; k < lanes; ++k) mean[k] = least[k] + sum[k] / count;
        for (int k = 0; k < lanes; ++k) {
            const double range = greatest[k] - least[k];
            grid[k] = grid_for(range * range, count);
            m2[k] = 0;
        }
        for (std::int64_t j = 0; j < n; ++j) {
            for (int k = 0; k < lanes; ++k) {
                x[j][k] -= mean[k];
                m2[k] += (x[j][k] * x[j][k] + grid[k]) - grid[k];
            }
        }
    }

    // The centred members times one factor a group, after measure().
    template <class Out>
    GRPO_HD void write(Out* out, std::int64_t n, std::int64_t stride, const double* factor) const {
        for (int k = 0; k < lanes; ++k) {
            for (std::int64_t j = 0; j < n; ++j) out[k * stride + j] = static_cast<Out>(x[j][k] * factor[k]);
        }
    }
};

}  // namespace grpo::inline v0::detail
