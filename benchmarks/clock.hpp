// How the benchmarks take time: thread CPU time for one thread (immune to other processes on the core),
// wall time for several, contestants interleaved round by round, medians.
#pragma once

#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

enum class timebase { thread, wall };

inline double now(timebase base) {
    timespec t{};
    clock_gettime(base == timebase::thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// glibc hands large freed blocks back to the kernel, so that every temporary of a tensor library faults its
/// pages in again; keeping them is up to 2.5x faster. Call before the first large allocation.
inline void keep_freed_memory() {
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
}

/// Stops the compiler from dropping the work behind a pointer.
inline void keep(const void* p) {
    asm volatile("" : : "g"(p) : "memory");
}

struct contestant {
    std::string name;
    std::function<void()> run;
    std::function<void()> prepare = {};  // before each call, outside the time: restores what run() overwrites
};

struct timing {
    std::string name;
    double median = 0;    // seconds per call
    double quickest = 0;  // seconds per call
};

inline double sample(const contestant& c, std::int64_t repeats, timebase base) {
    if (!c.prepare) {
        const double start = now(base);
        for (std::int64_t i = 0; i < repeats; ++i) c.run();
        return (now(base) - start) / static_cast<double>(repeats);
    }
    double total = 0;
    for (std::int64_t i = 0; i < repeats; ++i) {
        c.prepare();
        const double start = now(base);
        c.run();
        total += now(base) - start;
    }
    return total / static_cast<double>(repeats);
}

/// Calls per sample, so that one sample lasts at least `least` seconds and the clock's own cost disappears.
inline std::int64_t repeats_for(const contestant& c, timebase base, double least) {
    if (sample(c, 1, base) > 10 * least) return 1;
    sample(c, 1, base);
    std::int64_t repeats = 1;
    while (repeats < (std::int64_t{1} << 24)) {
        const double total = sample(c, repeats, base) * static_cast<double>(repeats);
        if (total >= least) break;
        repeats = total <= 0
                      ? repeats * 8
                      : std::max(repeats + 1, static_cast<std::int64_t>(static_cast<double>(repeats) * least / total));
    }
    return repeats;
}

/// With several threads, the last contestant's workers may still be polling for work: they are given time to sleep, and
/// this one's time to wake, where its calls are so short that waking would show.
inline void settle(const contestant& c, bool brief) {
    const timespec pause{0, 3'000'000};
    nanosleep(&pause, nullptr);
    if (brief) c.run();
}

/// One sample of every contestant per round, in turn: a slow minute of the machine falls on all of them.
inline std::vector<timing> race(const std::vector<contestant>& field, int rounds, timebase base = timebase::thread,
                                double least = 2e-3) {
    std::vector<std::int64_t> repeats;
    for (const auto& c : field) repeats.push_back(repeats_for(c, base, least));
    std::vector<std::vector<double>> samples(field.size());
    for (int r = 0; r < rounds; ++r) {
        for (std::size_t i = 0; i < field.size(); ++i) {
            if (base == timebase::wall) settle(field[i], repeats[i] > 1);
            samples[i].push_back(sample(field[i], repeats[i], base));
        }
    }
    std::vector<timing> result;
    for (std::size_t i = 0; i < field.size(); ++i) {
        auto& s = samples[i];
        std::sort(s.begin(), s.end());
        result.push_back({field[i].name, s[s.size() / 2], s.front()});
    }
    return result;
}

}  // namespace bench
