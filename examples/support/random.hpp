// Random choices that are the same everywhere: only what the C++ standard fixes to the bit is used.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

// A well-mixed function of one integer (the finaliser of SplitMix64).
inline std::uint64_t mixed(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// One integer of several: what a stateless stream seeds its k-th member with.
inline std::uint64_t mixed(std::initializer_list<std::uint64_t> parts) {
    std::uint64_t x = 0;
    for (const std::uint64_t part : parts) x = mixed(x ^ mixed(part));
    return x;
}

// The same text gives the same number on every machine (FNV-1a, mixed).
inline std::uint64_t mixed(std::string_view text) {
    std::uint64_t x = 0xcbf29ce484222325u;
    for (const char c : text) x = (x ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return mixed(x);
}

class choices {
public:
    explicit choices(std::uint64_t seed) : engine_(seed) {}

    // An integer from least to most; the bias of the remainder is below 2^-50 for the ranges used here.
    std::int64_t integer(std::int64_t least, std::int64_t most) {
        return least + static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(most - least + 1));
    }
    // A number from [0, 1).
    double unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
    // An index, each with the probability of its share; shares are at least 0 and have a positive sum.
    template <class Shares>
    std::size_t index(const Shares& shares) {
        double left = unit() * std::accumulate(shares.begin(), shares.end(), 0.0);
        std::size_t last = 0;
        for (std::size_t i = 0; i < shares.size(); ++i) {
            if (!(shares[i] > 0)) continue;
            last = i;
            if ((left -= shares[i]) < 0) return i;
        }
        return last;
    }
    // The integers from 0 to n - 1 in a random order.
    std::vector<std::int64_t> order(std::int64_t n) {
        std::vector<std::int64_t> all(static_cast<std::size_t>(n));
        std::iota(all.begin(), all.end(), std::int64_t{0});
        for (std::int64_t i = n - 1; i > 0; --i)
            std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(integer(0, i))]);
        return all;
    }

private:
    std::mt19937_64 engine_;
};

}  // namespace support
