// A machine that follows PTX: threads of a cluster of blocks in turn, each until it waits for others. What warps, blocks and
// clusters do together happens when all who must have come; who has not when nobody can go on is named. The order in which
// threads have their turns is another in every launch, and now and then a warp falls asleep for a while, so that a race shows
// as another result.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <emulator/module.hpp>

namespace emulator {

struct block;

enum class waiting { no, done, warp, barrier, cluster, a_while };

struct copy_to_shared {
    std::byte* to;
    const std::byte* from;
    int bytes, zeros;
};

struct frame {
    const function* code;
    const instruction* next;
    std::vector<std::uint64_t> registers;
    std::vector<std::byte> parameters;
    std::vector<std::byte> local;
};

struct thread {
    block* in = nullptr;
    int index = 0;
    std::vector<frame> frames;
    std::uint64_t* r = nullptr;  // registers of the last frame
    const instruction* next = nullptr;
    waiting state = waiting::no;

    // What it has told those for whom it waits.
    const instruction* met = nullptr;
    std::uint32_t mask = 0;
    int barrier = 0, expected = 0;
    int arrivals = 0;  // at the barrier of the cluster
    int barriers = 0;  // that it has passed
    std::vector<std::vector<copy_to_shared>> copies{1};  // groups, the last one open

    void enter(const function& f);
    void leave();
};

struct launch {
    const function* kernel;
    const void* const* parameters;
    unsigned grid = 1, threads = 1, cluster = 1, shared_bytes = 0;
};

struct arrivals_of {
    std::uint32_t count = 0, pending = 0, phase = 0;
    std::int64_t bytes = 0;
    void settle() {
        if (pending != 0 || bytes != 0) return;
        ++phase;
        pending = count;
    }
};

// Who used four bytes of shared memory last, and at which barrier of its own: two warps that do, one of them writing, without a
// barrier in between, race.
struct last_uses {
    static constexpr int nobody = -1, many = -2;
    int writer = nobody, written = -1;
    int reader = nobody, read = -1;
};

struct cluster_of_blocks;

struct block {
    cluster_of_blocks* cluster = nullptr;
    int rank = 0;      // in the cluster
    unsigned index = 0;
    std::vector<std::byte> shared;
    std::vector<last_uses> uses;
    std::map<std::uint32_t, arrivals_of> arrivals;  // by address
    std::vector<thread> threads;
};

struct cluster_of_blocks {
    const launch* of = nullptr;
    std::vector<block> blocks;
};

[[noreturn]] inline void fail(const thread& t, const std::string& what) {
    const frame& f = t.frames.back();
    const int line = (t.next == f.code->code.data() ? t.next : t.next - 1)->line;
    throw std::runtime_error("block " + std::to_string(t.in->index) + ", thread " + std::to_string(t.index) + ", line " +
                             std::to_string(line) + " of " + f.code->name.substr(0, 80) + ": " + what);
}

inline void thread::enter(const function& f) {
    if (!frames.empty()) frames.back().next = next;
    frames.push_back({&f, nullptr, std::vector<std::uint64_t>(f.registers.size(), 0x7ffdeadbeef7ffdeu),
                      std::vector<std::byte>(static_cast<std::size_t>(f.parameter_bytes), std::byte{0xff}),
                      std::vector<std::byte>(static_cast<std::size_t>(f.local_bytes), std::byte{0xff})});
    r = frames.back().registers.data();
    next = f.code.data();
    const auto fill = [&](const char* name, std::uint64_t x) {
        const auto known = f.registers.find(name);
        if (known != f.registers.end()) r[known->second] = x;
    };
    const launch& of = *in->cluster->of;
    fill("%tid.x", static_cast<std::uint64_t>(index));
    fill("%ntid.x", of.threads);
    fill("%ctaid.x", in->index);
    fill("%nctaid.x", of.grid);
    fill("%laneid", static_cast<std::uint64_t>(index % 32));
    fill("%cluster_ctarank", static_cast<std::uint64_t>(in->rank));
}
inline void thread::leave() {
    frames.pop_back();
    if (frames.empty()) {
        state = waiting::done;
        return;
    }
    r = frames.back().registers.data();
    next = frames.back().next;
}

// Shared memory by address: that of the launch's size begins at open_shared, that of another block of the cluster has one more
// than its number in the top byte.
inline constexpr int rank_shift = 24;
inline block& block_at(thread& t, std::uint32_t& address) {
    const std::uint32_t rank = address >> rank_shift;
    address &= (1u << rank_shift) - 1;
    auto& blocks = t.in->cluster->blocks;
    if (rank > blocks.size()) fail(t, "shared memory of a block that is not in the cluster");
    return rank == 0 ? *t.in : blocks[rank - 1];
}
inline std::uint32_t place_of_open(const block& in) {
    return static_cast<std::uint32_t>(detail::aligned(in.cluster->of->kernel->shared_bytes, 128));
}
inline std::byte* shared_at(thread& t, std::uint64_t address, int bytes) {
    auto a = static_cast<std::uint32_t>(address);
    block& in = block_at(t, a);
    const launch& of = *in.cluster->of;
    const auto size = static_cast<std::uint32_t>(bytes);
    const auto fixed = static_cast<std::uint32_t>(of.kernel->shared_bytes);
    const bool open = a >= open_shared;
    const std::uint32_t offset = a - static_cast<std::uint32_t>(open ? open_shared : first_shared);
    if (a < first_shared || offset > (open ? of.shared_bytes : fixed) || offset + size > (open ? of.shared_bytes : fixed)) {
        fail(t, "shared memory at " + std::to_string(a) + " is outside what the block has");
    }
    if ((offset & (size - 1)) != 0) fail(t, "shared memory at an address that is no multiple of the size");
    return in.shared.data() + (open ? place_of_open(in) : 0) + offset;
}

inline void use_shared(thread& t, const std::byte* at, int bytes, bool writes) {
    const int warp = t.index / 32;
    const std::ptrdiff_t first = at - t.in->shared.data();
    for (std::ptrdiff_t k = first / 4; k <= (first + bytes - 1) / 4; ++k) {
        last_uses& u = t.in->uses[static_cast<std::size_t>(k)];
        const bool after_write = u.writer != last_uses::nobody && u.writer != warp && u.written == t.barriers;
        const bool after_read = writes && u.reader != last_uses::nobody && u.reader != warp && u.read == t.barriers;
        if (after_write || after_read) {
            fail(t, std::string(writes ? "writes" : "reads") + " shared memory that another warp has " + (after_write ? "written" : "read") +
                        " since the last barrier");
        }
        if (writes) {
            u.writer = warp;
            u.written = t.barriers;
        } else {
            u.reader = u.read == t.barriers && u.reader != warp ? last_uses::many : warp;
            u.read = t.barriers;
        }
    }
}

class machine {
public:
    // Follows a launch to its end. Throws where a device would fail, or would wait for ever.
    static void run(const launch& of) {
        static std::uint32_t seed = 1;
        std::mt19937 order(seed++);
        if (of.grid % of.cluster != 0) throw std::runtime_error("the grid is no multiple of its clusters");
        std::vector<unsigned> clusters(of.grid / of.cluster);
        for (std::size_t k = 0; k < clusters.size(); ++k) clusters[k] = static_cast<unsigned>(k);
        std::shuffle(clusters.begin(), clusters.end(), order);
        for (const unsigned first : clusters) run_cluster(of, first * of.cluster, order);
    }

private:
    static void run_cluster(const launch& of, unsigned first, std::mt19937& order) {
        cluster_of_blocks all;
        all.of = &of;
        all.blocks.resize(of.cluster);
        std::vector<thread*> threads;
        for (unsigned b = 0; b < of.cluster; ++b) {
            block& in = all.blocks[b];
            in.cluster = &all;
            in.rank = static_cast<int>(b);
            in.index = first + b;
            in.shared.assign(place_of_open(in) + of.shared_bytes, std::byte{0xff});
            in.uses.resize(in.shared.size() / 4 + 1);
            in.threads.resize(of.threads);
            for (unsigned k = 0; k < of.threads; ++k) {
                thread& t = in.threads[k];
                t.in = &in;
                t.index = static_cast<int>(k);
                t.enter(*of.kernel);
                for (std::size_t p = 0; p < of.kernel->inputs.size(); ++p) {
                    const auto& [offset, bytes] = of.kernel->parameters.at(of.kernel->inputs[p]);
                    std::memcpy(t.frames.back().parameters.data() + offset, of.parameters[p], static_cast<std::size_t>(bytes));
                }
                threads.push_back(&t);
            }
        }
        std::shuffle(threads.begin(), threads.end(), order);
        const std::size_t warps = (of.threads + 31) / 32;
        std::vector<unsigned> asleep(of.cluster * warps);  // for so many turns
        int idle = 0;
        while (true) {
            bool moved = false, left = false;
            for (unsigned& turns : asleep) {
                const auto x = static_cast<unsigned>(order());
                turns = turns > 0 ? turns - 1 : x % 256 == 0 ? x >> 16 & 15u : 0;
            }
            for (thread* const t : threads) {
                if (asleep[static_cast<std::size_t>(t->in->rank) * warps + static_cast<std::size_t>(t->index) / 32] > 0) {
                    moved = left = true;  // or so it seems
                    continue;
                }
                if (t->state == waiting::a_while) t->state = waiting::no;
                if (t->state == waiting::no) moved = go(*t) || moved;
                left = left || t->state != waiting::done;
            }
            if (!left) return;
            const bool met = meet(all);
            idle = moved || met ? 0 : idle + 1;
            if (idle > 2) {
                for (thread* const t : threads) {
                    if (t->state != waiting::done) fail(*t, "waits for ever");
                }
            }
        }
    }

    // Until it waits: whether it came further than one more look.
    static bool go(thread& t) {
        std::int64_t steps = 0;
        while (t.state == waiting::no) {
            const instruction& i = *t.next++;
            ++steps;
            if (i.guard >= 0 && ((t.r[i.guard] & 1) != 0) == i.unless) continue;
            i.run(t, i);
        }
        return t.state != waiting::a_while || steps > 64;
    }

    static bool meet(cluster_of_blocks& all) {
        bool met = false;
        for (block& in : all.blocks) {
            const int count = static_cast<int>(in.threads.size());
            for (int first = 0; first < count; first += 32) met = meet_warp(in, first) || met;
            met = meet_block(in) || met;
        }
        return meet_cluster(all) || met;
    }
    static bool meet_warp(block& in, int first) {
        bool met = false;
        for (int lane = 0; lane < 32 && first + lane < static_cast<int>(in.threads.size()); ++lane) {
            thread& t = in.threads[static_cast<std::size_t>(first + lane)];
            if (t.state != waiting::warp) continue;
            if ((t.mask >> lane & 1) == 0) fail(t, "is not in its own mask");
            bool all = true;
            for (int other = 0; other < 32 && all; ++other) {
                if ((t.mask >> other & 1) == 0) continue;
                if (first + other >= static_cast<int>(in.threads.size())) fail(t, "waits for a lane that is not there");
                const thread& o = in.threads[static_cast<std::size_t>(first + other)];
                if (o.state == waiting::done) fail(t, "waits for a lane that has left");
                all = o.state == waiting::warp && o.met->run == t.met->run && o.met->target == t.met->target && o.mask == t.mask;
            }
            if (!all) continue;
            exchange(in, first, t);
            met = true;
        }
        return met;
    }
    static void exchange(block& in, int first, thread& any);  // see instructions.hpp

    static bool meet_block(block& in) {
        std::map<int, std::pair<int, int>> there;  // how many of how many, by barrier
        int left = 0;
        for (const thread& t : in.threads) {
            left += t.state != waiting::done ? 1 : 0;
            if (t.state != waiting::barrier) continue;
            ++there[t.barrier].first;
            there[t.barrier].second = t.expected;
        }
        bool met = false;
        for (const auto& [which, come] : there) {
            if (come.first < (come.second == 0 ? left : come.second)) continue;
            met = true;
            for (thread& t : in.threads) {
                if (t.state != waiting::barrier || t.barrier != which) continue;
                t.state = waiting::no;
                ++t.barriers;
            }
        }
        return met;
    }
    static bool meet_cluster(cluster_of_blocks& all) {
        int least = 1 << 30;
        for (const block& in : all.blocks) {
            for (const thread& t : in.threads) {
                if (t.state != waiting::done) least = std::min(least, t.arrivals);
            }
        }
        bool met = false;
        for (block& in : all.blocks) {
            for (thread& t : in.threads) {
                if (t.state != waiting::cluster || t.arrivals > least) continue;
                t.state = waiting::no;
                ++t.barriers;
                met = true;
            }
        }
        return met;
    }
};

}  // namespace emulator
