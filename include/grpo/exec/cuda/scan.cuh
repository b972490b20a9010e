// Scans from the last position of a row to its first, by lanes that have four neighbouring positions each at a time: what a
// lane composes of its own goes from lane to lane, and what comes in through its own.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/exchange.cuh>
#include <grpo/exec/cuda/pack.cuh>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

#if defined(__CUDACC__)

namespace grpo::inline v0::detail {

// One position of what a body tells of a pack.
template <int N>
__device__ float entry_of(const float_pack<N>& x, int k) {
    return x.v[k];
}
template <int N>
__device__ kept_value<float> entry_of(const kept_value<float_pack<N>>& x, int k) {
    return {x.value.v[k], x.kept.b[k]};
}
template <int N>
__device__ affine<float> entry_of(const affine<float_pack<N>>& x, int k) {
    return {x.scale.v[k], x.offset.v[k]};
}
template <class T>
    requires std::is_arithmetic_v<T>
__device__ T entry_of(T x, int) {
    return x;
}

// The positions of [begin, end) among the four that begin at a multiple of four: a pack, or scalars one by one.
template <class V>
struct neighbours {
    static constexpr int most = token_pack;
    using E = element_t<V>;
    using values = E[most];

    std::int64_t low;
    int count;  // the first so many of an array of values

    __device__ explicit neighbours(std::int64_t i) : low(i), count(most) {}
    __device__ neighbours(std::int64_t begin, std::int64_t end, std::int64_t i)
        : low(i < begin ? begin : i),
          count(i + most <= begin ? 0 : static_cast<int>((end - i < most ? end : i + most) - low)) {}

    // put(k, f(position k, what `given` have there)) for those that exist.
    template <class F, class Put, class... Given>
    __device__ void ask(F&& f, Put&& put, const Given&... given) const {
        if constexpr (scalar_traits<V>::lanes > 1) {
            if (count == most) {
                const auto told = f(whole(), pack_of(given)...);
                for (int k = 0; k < most; ++k) put(k, entry_of(told, k));
            } else if (count > 0) {
                const auto told = f(cursor<V>{low, count}, pack_of(given)...);
                for (int k = 0; k < most; ++k) {
                    if (k < count) put(k, entry_of(told, k));
                }
            }
        } else {
            for (int k = 0; k < most; ++k) {
                if (k < count) put(k, f(cursor<V>{low + k}, given[k]...));
            }
        }
    }
    template <class G>
    __device__ void tell(G&& g, const values& x) const {
        if constexpr (scalar_traits<V>::lanes > 1) {
            if (count == most) g(whole(), pack_of(x));
            else if (count > 0) g(cursor<V>{low, count}, pack_of(x));
        } else {
            for (int k = 0; k < most; ++k) {
                if (k < count) g(cursor<V>{low + k}, x[k]);
            }
        }
    }
    // f(k) for those that exist, the latest first.
    template <class F>
    __device__ void backwards(F&& f) const {
        for (int k = most - 1; k >= 0; --k) {
            if (k < count) f(k);
        }
    }

private:
    // With a compiler's knowledge that it begins at a multiple of four.
    __device__ cursor<V> whole() const { return {low & ~std::int64_t{most - 1}}; }
    __device__ static V pack_of(const values& x) {
        V all;
        for (int k = 0; k < most; ++k) all.v[k] = x[k];
        return all;
    }
};

// The first of the last four positions of [0, end).
__device__ inline std::int64_t last_neighbours(std::int64_t end) { return (end - 1) - (end - 1) % token_pack; }

// What lanes have each, joined with what those later in time have: of them in `before`, of all lanes in `all`. Lane 0 is the latest.
template <class X, class Join>
__device__ void scan_lanes(std::uint32_t mask, int width, int at, X mine, const Join& join, const X& none, X& before, X& all) {
    for (int half = 1; half < width; half *= 2) {
        const X other = moved(mine, [&](std::uint32_t w) { return __shfl_up_sync(mask, w, half, width); });
        if (at >= half) mine = join(mine, other);
    }
    before = moved(mine, [&](std::uint32_t w) { return __shfl_up_sync(mask, w, 1, width); });
    if (at == 0) before = none;
    all = moved(mine, [&](std::uint32_t w) { return __shfl_sync(mask, w, width - 1, width); });
}

// All elements with one scale, x -> offset + scale·x: its powers are known, so lanes hand on offsets alone. What goes from warp
// to warp does so in double, as it may go on for long. Lane 0 of a warp (or of the part of it that is a team) is at the latest
// positions. Warps: teams of whole ones.
template <class V, bool Warps>
struct uniform_scan {
    using E = element_t<V>;
    int width;  // lanes of the team within a warp
    int at;     // this one
    int warps, warp;
    std::uint32_t mask;
    E scale;
    E powers[5];             // of the scale: of 1, 2, 4, 8, 16 lanes
    E to_here;               // of the lanes before this one
    double warp_powers[3];   // of 1, 2, 4 warps
    double to_warp;          // of the warps before this one
    double of_team;          // of all of them

    __device__ uniform_scan(int lanes, int lane, std::uint32_t lanes_of_warp, const V& one)
        : width(Warps ? 32 : lanes), at(lane & (width - 1)), warps(Warps ? lanes / 32 : 1), warp(Warps ? lane / 32 : 0),
          mask(Warps ? whole_warp : lanes_of_warp),
          scale(entry_of(one, 0)), to_warp(1), of_team(static_cast<double>(scale)) {
        for (int k = 1; k < token_pack; k *= 2) of_team *= of_team;
        double own = 1;
        for (int k = 0, half = 1; k < 5; ++k, half *= 2) {
            powers[k] = static_cast<E>(of_team);
            if (half >= width) continue;
            if ((at & half) != 0) own *= of_team;
            of_team *= of_team;
        }
        to_here = static_cast<E>(own);
        for (int k = 0, half = 1; k < 3; ++k, half *= 2) {
            warp_powers[k] = of_team;
            if (half >= warps) continue;
            if ((warp & half) != 0) to_warp *= of_team;
            of_team *= of_team;
        }
    }

    // From the end: an offset is f(position, next), `next` the x of the position after it; then g(position, sum). share(out):
    // tells the team's other warps what comes out of this one where nothing comes in; lane k is told that of warp k modulo their
    // number.
    template <class X, class F, class G, class Share>
    __device__ void walk(std::int64_t begin, std::int64_t end, X&& x, F&& f, G&& g, Share&& share) const {
        double carry = 0;
        const std::int64_t stretch = token_pack * width * warps;
        std::int64_t first = last_neighbours(end);  // of the latest lane's positions
        const std::int64_t later_lanes = token_pack * (width * warp + at);
        // Offsets are read a stretch ahead of the one that is added up: memory answers meanwhile.
        values offset;
        read(end, neighbours<V>(begin, end, first - later_lanes), x, f, offset);
        const auto turn = [&](const neighbours<V>& here, const neighbours<V>& ahead) {
            values offset_ahead, sums;
            read(end, ahead, x, f, offset_ahead);
            E out{};
            here.backwards([&](int k) { out = offset[k] + scale * out; });
            E before;
            compose(width, at, powers, out, before);
            double in = carry;
            double all = static_cast<double>(out);
            if (warps > 1) {
                all = share(all);
                double earlier;
                compose(warps, at & (warps - 1), warp_powers, all, earlier);
                in = __shfl_sync(mask, earlier, warp, warps) + to_warp * carry;
            }
            carry = all + of_team * carry;
            E sum = before + to_here * static_cast<E>(in);
            here.backwards([&](int k) { sums[k] = sum = offset[k] + scale * sum; });
            here.tell(g, sums);
            for (int k = 0; k < token_pack; ++k) offset[k] = offset_ahead[k];
        };
        for (; first + token_pack > begin; first -= stretch) {
            const std::int64_t i = first - later_lanes;
            const bool inside = first + token_pack <= end && first + token_pack - 2 * stretch >= begin;  // as the next one is
            if (inside) turn(neighbours<V>(i), neighbours<V>(i - stretch));
            else turn(neighbours<V>(begin, end, i), neighbours<V>(begin, end, i - stretch));
        }
    }

private:
    using values = typename neighbours<V>::values;

    template <class X, class F>
    __device__ static void read(std::int64_t end, const neighbours<V>& here, X& x, F& f, values& offset) {
        const std::int64_t later = here.low + here.count;
        const E after = here.count > 0 && later < end ? x(cursor<E>{later}).value : E{};
        values next;
        for (E& y : next) y = after;
        here.ask(x, [&](int k, const kept_value<E>& told) {
            if (k > 0) next[k - 1] = told.value;
        });
        here.ask(f, [&](int k, const E& told) { offset[k] = told; }, next);
    }
    // Of what `count` lanes have each: what comes into this one, and in `out` what comes out of them all.
    template <int Steps, class X>
    __device__ void compose(int count, int place, const X (&of_lanes)[Steps], X& out, X& before) const {
        for (int k = 0, half = 1; k < Steps; ++k, half *= 2) {
            const X later = __shfl_up_sync(mask, out, half, count);
            if (place >= half) out = out + of_lanes[k] * later;
        }
        before = __shfl_up_sync(mask, out, 1, count);
        if (place == 0) before = X{};
        out = __shfl_sync(mask, out, count - 1, count);
    }
};

}  // namespace grpo::inline v0::detail

#endif
