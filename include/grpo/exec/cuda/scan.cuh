// A scan over neighbouring positions whose elements all have one scale, x -> offset + scale·x: its powers are known, so lanes
// hand on offsets alone. What goes from warp to warp does so in double, as it may go on for long.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/shape.hpp>

#if defined(__CUDACC__)

namespace grpo::inline v0::detail {

// How many positions a lane has at a time.
inline constexpr int scan_in_turn = 4;

// Lane 0 of a warp (or of the part of it that is a team) is at the latest position, its next ones as many positions earlier as
// there are lanes.
template <class V>
struct uniform_scan {
    int width;  // lanes of the team within a warp
    int at;     // this one
    int warps, warp;
    std::uint32_t mask;
    V powers[5];      // of the scale: 1, 2, 4, 8, 16 positions
    V to_here;        // at + 1 positions
    double of_group;  // as many as lanes
    double of_warp;   // as a warp has at a time

    __device__ uniform_scan(int lanes, int lane, std::uint32_t lanes_of_warp, const V& scale)
        : width(lanes < 32 ? lanes : 32), at(lane & (width - 1)), warps(lanes / width), warp(lane / width), mask(lanes_of_warp),
          of_group(static_cast<double>(scale)) {
        double own = of_group;
        for (int k = 0, half = 1; k < 5; ++k, half *= 2) {
            powers[k] = static_cast<V>(of_group);
            if (half >= width) continue;
            if ((at & half) != 0) own *= of_group;
            of_group *= of_group;
        }
        to_here = static_cast<V>(own);
        of_warp = of_group;
        for (int k = 1; k < scan_in_turn; k *= 2) of_warp *= of_warp;
    }

    // From the end: an offset is f(cursor, next), `next` the x of the position after it; then g(cursor, sum). tell(out): tells the
    // team's other warps what comes out of this one where nothing comes in, and returns what they tell, by warp.
    template <class X, class F, class G, class Tell>
    __device__ void walk(std::int64_t begin, std::int64_t end, X&& x, F&& f, G&& g, Tell&& tell) const {
        double carry = 0;
        const std::int64_t stretch = scan_in_turn * width * warps;
        std::int64_t latest = end - 1 - scan_in_turn * width * warp - at;
        // Offsets are read a stretch ahead of the one that is added up: memory answers meanwhile.
        const auto read = [&](std::int64_t from, shares& offset) {
            for (int j = 0; j < scan_in_turn; ++j) {
                const std::int64_t i = from - j * width;
                offset[j] = V{};
                if (i >= begin) offset[j] = f(cursor<V>{i}, i + 1 < end ? x(cursor<V>{i + 1}).value : V{});
            }
        };
        shares sum, ahead, tail;
        read(latest, sum);
        for (std::int64_t last = end - 1; last >= begin; last -= stretch, latest -= stretch) {
            read(latest - stretch, ahead);
            within_groups(sum, tail);
            double in = carry;
            if (warps > 1) in = through_warps(tell(out_of(tail)), carry);
            for (int j = 0; j < scan_in_turn; ++j) {
                const std::int64_t i = latest - j * width;
                if (i >= begin) g(cursor<V>{i}, V(sum[j] + to_here * static_cast<V>(in)));
                in = after(tail[j], in);
            }
            if (warps == 1) carry = in;
            for (int j = 0; j < scan_in_turn; ++j) sum[j] = ahead[j];
        }
    }

private:
    using shares = V[scan_in_turn];

    // Of offsets, the sums from the latest position of their group on, and the last sum of each group.
    __device__ void within_groups(shares& sum, shares& tail) const {
        for (int k = 0, half = 1; k < 5; ++k, half *= 2) {
            if (half >= width) break;
            for (int j = 0; j < scan_in_turn; ++j) {
                const V later = __shfl_up_sync(mask, sum[j], half, width);
                if (at >= half) sum[j] = sum[j] + powers[k] * later;
            }
        }
        for (int j = 0; j < scan_in_turn; ++j) tail[j] = __shfl_sync(mask, sum[j], width - 1, width);
    }
    __device__ double after(const V& tail, double in) const { return static_cast<double>(tail) + of_group * in; }
    __device__ double out_of(const shares& tail) const {
        double out = 0;
        for (int j = 0; j < scan_in_turn; ++j) out = after(tail[j], out);
        return out;
    }
    // What comes into this warp, and out of the last one into `carry`.
    template <class Outs>
    __device__ double through_warps(const Outs& outs, double& carry) const {
        double in = carry;
        for (int u = 0; u < warps; ++u) {
            if (u == warp) in = carry;
            carry = outs(u) + of_warp * carry;
        }
        return in;
    }
};

}  // namespace grpo::inline v0::detail

#endif
