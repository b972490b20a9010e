// What each instruction of PTX does to a thread (PTX ISA, chapter 9), as far as this library's kernels need them.
#pragma once

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <emulator/machine.hpp>

namespace emulator {
namespace detail {

template <class T>
T value_of(std::uint64_t bits) {
    if constexpr (std::is_same_v<T, bool>) {
        return (bits & 1) != 0;
    } else {
        T x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }
}
template <class T>
std::uint64_t bits_of(T x) {
    if constexpr (std::is_same_v<T, bool>) return x ? 1 : 0;
    else if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) return static_cast<std::uint64_t>(static_cast<std::int64_t>(x));
    else if constexpr (std::is_integral_v<T>) return static_cast<std::uint64_t>(x);
    else {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &x, sizeof x);
        return bits;
    }
}

inline std::uint64_t place_of(const thread& t, const operand& x) {
    const frame& here = t.frames.back();
    const std::byte* const from = x.base == operand::base_of::parameters ? here.parameters.data() : here.local.data();
    return x.value + reinterpret_cast<std::uintptr_t>(from);
}
[[gnu::always_inline]] inline std::uint64_t bits(const thread& t, const operand& x) {
    if (x.reg >= 0) [[likely]] return t.r[x.reg] ^ x.inverted;
    return x.base == operand::base_of::nothing ? x.value : place_of(t, x);
}
template <class T>
T get(const thread& t, const operand& x) {
    return value_of<T>(bits(t, x));
}
template <class T>
void put(thread& t, const operand& to, T x) {
    if (to.reg >= 0) t.r[to.reg] = bits_of(x);
}

// Operations by type: op::of<T>(thread, instruction).
template <class F>
struct unary {
    template <class T>
    static void of(thread& t, const instruction& i) {
        put<T>(t, i.to, static_cast<T>(F{}(get<T>(t, i.args[0]))));
    }
};
template <class F>
struct binary {
    template <class T>
    static void of(thread& t, const instruction& i) {
        put<T>(t, i.to, static_cast<T>(F{}(get<T>(t, i.args[0]), get<T>(t, i.args[1]))));
    }
};
template <class T>
using wrapping = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::type_identity<T>>::type;
template <class T>
using at_least_32 = std::conditional_t<std::is_integral_v<T> && sizeof(T) < 4, std::uint32_t, wrapping<T>>;

#define EMULATOR_WRAPPING(name, sign)                                                          \
    struct name {                                                                              \
        template <class T>                                                                     \
        T operator()(T a, T b) const {                                                         \
            return static_cast<T>(static_cast<at_least_32<T>>(a) sign static_cast<at_least_32<T>>(b)); \
        }                                                                                      \
    };
EMULATOR_WRAPPING(plus, +)
EMULATOR_WRAPPING(minus, -)
EMULATOR_WRAPPING(times, *)
#undef EMULATOR_WRAPPING

struct over {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_integral_v<T>) return b == 0 ? T(-1) : T(a / b);
        else return a / b;
    }
};
struct remainder {
    template <class T>
    T operator()(T a, T b) const {
        return b == 0 ? a : T(a % b);
    }
};
struct least {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
        else return a < b ? a : b;
    }
};
struct greatest {
    template <class T>
    T operator()(T a, T b) const {
        if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
        else return a < b ? b : a;
    }
};
struct both_bits {
    template <class T>
    T operator()(T a, T b) const { return static_cast<T>(a & b); }
};
struct any_bits {
    template <class T>
    T operator()(T a, T b) const { return static_cast<T>(a | b); }
};
struct other_bits {
    template <class T>
    T operator()(T a, T b) const { return static_cast<T>(a ^ b); }
};
struct no_bits {
    template <class T>
    T operator()(T a) const {
        if constexpr (std::is_same_v<T, bool>) return !a;
        else return static_cast<T>(~a);
    }
};
struct negative {
    template <class T>
    T operator()(T a) const {
        if constexpr (std::is_integral_v<T>) return static_cast<T>(0 - static_cast<at_least_32<T>>(a));
        else return -a;
    }
};
struct absolute {
    template <class T>
    T operator()(T a) const {
        if constexpr (std::is_integral_v<T>) return a < 0 ? static_cast<T>(0 - static_cast<at_least_32<T>>(a)) : a;
        else return std::fabs(a);
    }
};
struct set_bits {
    template <class T>
    std::uint32_t operator()(T a) const { return static_cast<std::uint32_t>(std::popcount(static_cast<std::make_unsigned_t<T>>(a))); }
};
struct leading_zeros {
    template <class T>
    std::uint32_t operator()(T a) const { return static_cast<std::uint32_t>(std::countl_zero(static_cast<std::make_unsigned_t<T>>(a))); }
};
struct reciprocal {
    template <class T>
    T operator()(T a) const { return T(1) / a; }
};
// Of a double's upper half; the lower is 0.
struct rough_reciprocal {
    double operator()(double a) const {
        return std::bit_cast<double>(std::bit_cast<std::uint64_t>(1.0 / std::bit_cast<double>(std::bit_cast<std::uint64_t>(a) >> 32 << 32)) >> 32 << 32);
    }
};
struct rough_reciprocal_root {
    double operator()(double a) const { return std::bit_cast<double>(std::bit_cast<std::uint64_t>(1.0 / std::sqrt(a)) >> 32 << 32); }
};
struct reciprocal_root {
    template <class T>
    T operator()(T a) const { return T(1) / std::sqrt(a); }
};
struct root {
    template <class T>
    T operator()(T a) const { return std::sqrt(a); }
};
struct power_of_2 {
    template <class T>
    T operator()(T a) const { return std::exp2(a); }
};
struct log_2 {
    template <class T>
    T operator()(T a) const { return std::log2(a); }
};
struct counted_bits_of_set {
    template <class T>
    static void of(thread& t, const instruction& i) { put<std::uint32_t>(t, i.to, set_bits{}(get<T>(t, i.args[0]))); }
};
struct counted_leading_zeros {
    template <class T>
    static void of(thread& t, const instruction& i) { put<std::uint32_t>(t, i.to, leading_zeros{}(get<T>(t, i.args[0]))); }
};
struct shift_left {
    template <class T>
    static void of(thread& t, const instruction& i) {
        const auto n = get<std::uint32_t>(t, i.args[1]);
        const auto x = get<std::make_unsigned_t<T>>(t, i.args[0]);
        put<T>(t, i.to, n >= 8 * sizeof(T) ? T(0) : static_cast<T>(static_cast<std::uint64_t>(x) << n));
    }
};
struct shift_right {
    template <class T>
    static void of(thread& t, const instruction& i) {
        auto n = get<std::uint32_t>(t, i.args[1]);
        const auto x = get<T>(t, i.args[0]);
        if (n >= 8 * sizeof(T)) {
            if constexpr (std::is_unsigned_v<T>) return put<T>(t, i.to, T(0));
            n = 8 * sizeof(T) - 1;
        }
        put<T>(t, i.to, static_cast<T>(x >> n));
    }
};
// The low bits of one at a place of another.
struct bits_put_in {
    template <class T>
    static void of(thread& t, const instruction& i) {
        const auto at = get<std::uint32_t>(t, i.args[2]) & 255u, length = get<std::uint32_t>(t, i.args[3]) & 255u;
        const T ones = length >= 8 * sizeof(T) ? static_cast<T>(-1) : static_cast<T>((T(1) << length) - 1);
        const T mask = at >= 8 * sizeof(T) ? T(0) : static_cast<T>(ones << at);
        const T x = at >= 8 * sizeof(T) ? T(0) : static_cast<T>(get<T>(t, i.args[0]) << at);
        put<T>(t, i.to, static_cast<T>((get<T>(t, i.args[1]) & ~mask) | (x & mask)));
    }
};
// Four bytes of eight, each by four bits: which one, and whether its sign takes the place of its bits.
inline void permute_bytes(thread& t, const instruction& i) {
    const std::uint64_t all = get<std::uint32_t>(t, i.args[0]) | std::uint64_t{get<std::uint32_t>(t, i.args[1])} << 32;
    const auto which = get<std::uint32_t>(t, i.args[2]);
    std::uint32_t r = 0;
    for (unsigned k = 0; k < 4; ++k) {
        const std::uint32_t chosen = which >> (4 * k) & 15u;
        std::uint32_t byte = static_cast<std::uint32_t>(all >> (8 * (chosen & 7u))) & 255u;
        if ((chosen & 8u) != 0) byte = (byte & 128u) != 0 ? 255u : 0u;
        r |= byte << (8 * k);
    }
    put<std::uint32_t>(t, i.to, r);
}
template <class F>
struct fused {
    template <class T>
    static void of(thread& t, const instruction& i) {
        put<T>(t, i.to, F{}(get<T>(t, i.args[0]), get<T>(t, i.args[1]), get<T>(t, i.args[2])));
    }
};
template <int Mode>
struct fma_rounded {
    template <class T>
    T operator()(T a, T b, T c) const {
        if constexpr (Mode == FE_TONEAREST) return std::fma(a, b, c);
        const int before = std::fegetround();
        std::fesetround(Mode);
        volatile T va = a, vb = b, vc = c;
        volatile T r = std::fma(va, vb, vc);
        std::fesetround(before);
        return r;
    }
};
struct times_plus {
    template <class T>
    T operator()(T a, T b, T c) const { return plus{}(times{}(a, b), c); }
};
template <class T>
using wider = std::conditional_t<std::is_signed_v<T>, std::conditional_t<sizeof(T) == 4, std::int64_t, std::int32_t>,
                                 std::conditional_t<sizeof(T) == 4, std::uint64_t, std::uint32_t>>;
template <bool Adds>
struct times_wide {
    template <class T>
    static void of(thread& t, const instruction& i) {
        using W = wider<T>;
        auto x = static_cast<W>(times{}(static_cast<W>(get<T>(t, i.args[0])), static_cast<W>(get<T>(t, i.args[1]))));
        if constexpr (Adds) x = plus{}(x, get<W>(t, i.args[2]));
        put<W>(t, i.to, x);
    }
};
template <bool Adds>
struct times_high {
    template <class T>
    static void of(thread& t, const instruction& i) {
        using W = std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
                                     std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;
        auto x = static_cast<T>((static_cast<W>(get<T>(t, i.args[0])) * static_cast<W>(get<T>(t, i.args[1]))) >> (8 * sizeof(T)));
        if constexpr (Adds) x = plus{}(x, get<T>(t, i.args[2]));
        put<T>(t, i.to, x);
    }
};
struct chosen {
    template <class T>
    static void of(thread& t, const instruction& i) {
        put<T>(t, i.to, get<bool>(t, i.args[2]) ? get<T>(t, i.args[0]) : get<T>(t, i.args[1]));
    }
};

// lt, ltu and the like; then, perhaps, joined with a predicate.
enum class relation { lt, le, gt, ge, eq, ne, num, nan };
enum class joined { no, with_and, with_or, with_xor };
template <relation R, bool OrNan, joined J>
struct compared {
    template <class T>
    static void of(thread& t, const instruction& i) {
        const T a = get<T>(t, i.args[0]), b = get<T>(t, i.args[1]);
        bool nan = false;
        if constexpr (std::is_floating_point_v<T>) nan = std::isnan(a) || std::isnan(b);
        bool x = false;
        if constexpr (R == relation::lt) x = a < b;
        if constexpr (R == relation::le) x = a <= b;
        if constexpr (R == relation::gt) x = a > b;
        if constexpr (R == relation::ge) x = a >= b;
        if constexpr (R == relation::eq) x = a == b;
        if constexpr (R == relation::ne) x = a != b;
        if constexpr (R == relation::num) x = !nan;
        if constexpr (R == relation::nan) x = nan;
        if (nan && R != relation::num && R != relation::nan) x = OrNan;
        bool y = !x;
        if constexpr (J != joined::no) {
            const bool c = get<bool>(t, i.args[2]);
            const auto join = [&](bool p) { return J == joined::with_and ? p && c : J == joined::with_or ? p || c : p != c; };
            x = join(x);
            y = join(y);
        }
        put<bool>(t, i.to, x);
        put<bool>(t, i.also, y);
    }
};

// Conversions: rounding to whole numbers first, if asked.
enum class rounded { no, nearest, zero, down, up };
template <rounded R, bool Saturated, class To, class From>
void convert(thread& t, const instruction& i) {
    From x = get<From>(t, i.args[0]);
    if constexpr (std::is_floating_point_v<From>) {
        if constexpr (R == rounded::nearest) x = std::nearbyint(x);
        if constexpr (R == rounded::zero) x = std::trunc(x);
        if constexpr (R == rounded::down) x = std::floor(x);
        if constexpr (R == rounded::up) x = std::ceil(x);
        if constexpr (std::is_integral_v<To>) {
            using L = std::numeric_limits<To>;
            // Out of range: the nearest end; a NaN is 0, and of 64 bits the least or greatest.
            if (std::isnan(x)) return put<To>(t, i.to, sizeof(To) == 8 ? (std::is_signed_v<To> ? L::min() : L::max()) : To(0));
            const From top = std::ldexp(From(1), L::digits);
            if (x >= top) return put<To>(t, i.to, L::max());
            if (x < (std::is_signed_v<To> ? -top : From(0))) return put<To>(t, i.to, L::min());
        }
    }
    auto y = static_cast<To>(x);
    if constexpr (Saturated && std::is_floating_point_v<To>) y = y > 0 ? (y < 1 ? y : To(1)) : To(0);
    put<To>(t, i.to, y);
}
inline void two_bfloat16(thread& t, const instruction& i) {
    const auto of = [](float x) {
        const auto b = std::bit_cast<std::uint32_t>(x);
        return std::isnan(x) ? 0x7fffu : (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
    };
    put<std::uint32_t>(t, i.to, of(get<float>(t, i.args[0])) << 16 | of(get<float>(t, i.args[1])));
}

// Memory. Spaces but shared memory are the host's; a shared address is a number of the block's.
enum class space { shared, other };
template <space S>
std::byte* memory_at(thread& t, const operand& at, int bytes) {
    const std::uint64_t address = at.reg >= 0 ? t.r[at.reg] + at.value : bits(t, at);
    if constexpr (S == space::shared) {
        return shared_at(t, address, bytes);
    } else {
        if ((address & static_cast<std::uint64_t>(bytes - 1)) != 0) fail(t, "an address that is no multiple of the size of its access");
        if (address < 4096) fail(t, "an access to address " + std::to_string(address));
        return reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(address));
    }
}
template <space S>
struct loaded {
    template <class T>
    static void of(thread& t, const instruction& i) {
        const int count = i.parts == nullptr ? 1 : static_cast<int>(i.parts->size());
        const std::byte* const p = memory_at<S>(t, i.args[0], count * static_cast<int>(sizeof(T)));
        if constexpr (S == space::shared) use_shared(t, p, count * static_cast<int>(sizeof(T)), false);
        T x[8];
        std::memcpy(x, p, static_cast<std::size_t>(count) * sizeof(T));
        if (i.parts == nullptr) return put<T>(t, i.to, x[0]);
        for (int k = 0; k < count; ++k) put<T>(t, (*i.parts)[static_cast<std::size_t>(k)], x[k]);
    }
};
template <space S>
struct stored {
    template <class T>
    static void of(thread& t, const instruction& i) {
        const int count = i.parts == nullptr ? 1 : static_cast<int>(i.parts->size());
        T x[8];
        for (int k = 0; k < count; ++k) x[k] = get<T>(t, i.parts == nullptr ? i.args[1] : (*i.parts)[static_cast<std::size_t>(k)]);
        std::byte* const p = memory_at<S>(t, i.args[0], count * static_cast<int>(sizeof(T)));
        if constexpr (S == space::shared) use_shared(t, p, count * static_cast<int>(sizeof(T)), true);
        std::memcpy(p, x, static_cast<std::size_t>(count) * sizeof(T));
    }
};
template <class F>
struct added_at_once {
    template <class T>
    static void of(thread& t, const instruction& i) {
        std::byte* const p = memory_at<space::other>(t, i.args[0], sizeof(T));
        T before;
        std::memcpy(&before, p, sizeof before);
        const T after = F{}(before, get<T>(t, i.args[1]));
        std::memcpy(p, &after, sizeof after);
        put<T>(t, i.to, before);
    }
};
// A register in parts, or of parts.
struct moved {
    template <class T>
    static void of(thread& t, const instruction& i) {
        const std::vector<operand>& parts = *i.parts;
        const std::size_t width = 8 * sizeof(T) / parts.size();
        const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
        std::uint64_t x = i.to.reg >= 0 ? 0 : bits(t, i.args[0]);
        for (std::size_t k = 0; k < parts.size(); ++k) {
            if (i.to.reg >= 0) x |= (bits(t, parts[k]) & mask) << (width * k);
            else put<std::uint64_t>(t, parts[k], x >> (width * k) & mask);
        }
        if (i.to.reg >= 0) t.r[i.to.reg] = x;
    }
};

inline void jump(thread& t, const instruction& i) { t.next = t.frames.back().code->code.data() + i.target; }
inline void nothing(thread&, const instruction&) {}
inline void copy_bits(thread& t, const instruction& i) { put<std::uint64_t>(t, i.to, bits(t, i.args[0])); }
// Generic addresses are the host's.
inline void out_of_shared(thread& t, const instruction& i) {
    put<std::uint64_t>(t, i.to, bits_of(reinterpret_cast<std::uintptr_t>(shared_at(t, bits(t, i.args[0]), 1))));
}
inline void into_shared(thread& t, const instruction& i) {
    const std::uint64_t offset = bits(t, i.args[0]) - bits_of(reinterpret_cast<std::uintptr_t>(t.in->shared.data()));
    if (offset >= t.in->shared.size()) fail(t, "an address that is not of the block's shared memory");
    const std::uint64_t open = place_of_open(*t.in);
    put<std::uint64_t>(t, i.to, offset < open ? offset + first_shared : offset - open + open_shared);
}
inline void call(thread& t, const instruction& i) {
    const std::size_t from = t.frames.size() - 1;
    t.enter(*i.call->callee);
    for (const call_of::copy& c : i.call->arguments) {
        std::memcpy(t.frames.back().parameters.data() + c.callee, t.frames[from].parameters.data() + c.caller,
                    static_cast<std::size_t>(c.bytes));
    }
}
inline void back(thread& t, const instruction&) {
    if (t.frames.size() > 1) {
        frame& caller = t.frames[t.frames.size() - 2];
        for (const call_of::copy& c : (caller.next - 1)->call->results) {
            std::memcpy(caller.parameters.data() + c.caller, t.frames.back().parameters.data() + c.callee,
                        static_cast<std::size_t>(c.bytes));
        }
    }
    t.leave();
}
inline void trapped(thread& t, const instruction&) { fail(t, "a trap"); }

inline void wait_for_warp(thread& t, std::uint32_t mask, const instruction& i) {
    t.mask = mask;
    t.met = &i;
    t.state = waiting::warp;
}
inline void shuffle(thread& t, const instruction& i) { wait_for_warp(t, get<std::uint32_t>(t, i.args[3]), i); }
inline void sync_warp(thread& t, const instruction& i) { wait_for_warp(t, get<std::uint32_t>(t, i.args[0]), i); }
inline void sync_block(thread& t, const instruction& i) {
    t.barrier = get<std::int32_t>(t, i.args[0]);
    t.expected = get<std::int32_t>(t, i.args[1]);
    t.state = waiting::barrier;
}
inline void arrive_cluster(thread& t, const instruction&) { ++t.arrivals; }
inline void wait_cluster(thread& t, const instruction&) { t.state = waiting::cluster; }

inline void other_block(thread& t, const instruction& i) {
    put<std::uint32_t>(t, i.to, get<std::uint32_t>(t, i.args[0]) | (get<std::uint32_t>(t, i.args[1]) + 1) << rank_shift);
}
inline arrivals_of& arrivals_at(thread& t, const operand& at) {
    auto address = static_cast<std::uint32_t>(bits(t, at));
    (void)shared_at(t, address, 8);
    block& in = block_at(t, address);
    const auto known = in.arrivals.find(address);
    if (known == in.arrivals.end()) fail(t, "an mbarrier that nobody has prepared");
    return known->second;
}
inline void prepare_arrivals(thread& t, const instruction& i) {
    const auto address = get<std::uint32_t>(t, i.args[0]);
    (void)shared_at(t, address, 8);
    const auto count = get<std::uint32_t>(t, i.args[1]);
    t.in->arrivals[address] = {count, count, 0, 0};
}
inline void expect_bytes(thread& t, const instruction& i) {
    arrivals_of& at = arrivals_at(t, i.args[0]);
    at.bytes += get<std::uint32_t>(t, i.args[1]);
    if (at.pending == 0) fail(t, "an mbarrier with more arrivals than it expects");
    --at.pending;
    at.settle();
}
inline void look_for_arrivals(thread& t, const instruction& i) {
    const bool done = (arrivals_at(t, i.args[0]).phase & 1) != (get<std::uint32_t>(t, i.args[1]) & 1);
    put<bool>(t, i.to, done);
    if (!done) t.state = waiting::a_while;
}
inline void send_word(thread& t, const instruction& i) {
    const auto word = get<std::uint32_t>(t, i.args[1]);
    std::memcpy(shared_at(t, bits(t, i.args[0]), 4), &word, sizeof word);
    arrivals_of& at = arrivals_at(t, i.args[2]);
    at.bytes -= 4;
    at.settle();
}

// Copies arrive as late as they may: when their group is waited for.
inline void copy_later(thread& t, const instruction& i) {
    const int bytes = get<std::int32_t>(t, i.args[2]);
    const bool partly = i.args[3].reg >= 0 || i.args[3].value != 0;
    const int given = partly ? get<std::int32_t>(t, i.args[3]) : bytes;
    t.copies.back().push_back({memory_at<space::shared>(t, i.args[0], bytes), memory_at<space::other>(t, i.args[1], bytes), given, bytes - given});
}
inline void close_group(thread& t, const instruction&) { t.copies.emplace_back(); }
inline void wait_for_groups(thread& t, const instruction& i) {
    const auto left = static_cast<std::size_t>(get<std::int32_t>(t, i.args[0]));
    while (t.copies.size() > left + 1) {
        for (const copy_to_shared& c : t.copies.front()) {
            std::memcpy(c.to, c.from, static_cast<std::size_t>(c.bytes));
            std::memset(c.to + c.bytes, 0, static_cast<std::size_t>(c.zeros));
        }
        t.copies.erase(t.copies.begin());
    }
}

// An action by the name of a type.
template <class Op>
action of_integers(const std::string& type) {
    if (type == "s64") return &Op::template of<std::int64_t>;
    if (type == "u64" || type == "b64") return &Op::template of<std::uint64_t>;
    if (type == "s32") return &Op::template of<std::int32_t>;
    if (type == "u32" || type == "b32") return &Op::template of<std::uint32_t>;
    if (type == "s16") return &Op::template of<std::int16_t>;
    if (type == "u16" || type == "b16") return &Op::template of<std::uint16_t>;
    if (type == "s8") return &Op::template of<std::int8_t>;
    if (type == "u8" || type == "b8") return &Op::template of<std::uint8_t>;
    return nullptr;
}
template <class Op>
action of_wide_integers(const std::string& type) {
    if (type == "s32") return &Op::template of<std::int32_t>;
    if (type == "u32") return &Op::template of<std::uint32_t>;
    if (type == "s16") return &Op::template of<std::int16_t>;
    if (type == "u16") return &Op::template of<std::uint16_t>;
    return nullptr;
}
template <class Op>
action of_floats(const std::string& type) {
    if (type == "f32") return &Op::template of<float>;
    if (type == "f64") return &Op::template of<double>;
    return nullptr;
}
template <class Op>
action of_numbers(const std::string& type) {
    if (const action a = of_floats<Op>(type)) return a;
    return of_integers<Op>(type);
}
template <class Op>
action of_bits(const std::string& type) {
    if (type == "pred") return &Op::template of<bool>;
    return of_integers<Op>(type);
}
template <relation R, bool OrNan>
action comparison(const std::string& join, const std::string& type) {
    if (join == "and") return of_numbers<compared<R, OrNan, joined::with_and>>(type);
    if (join == "or") return of_numbers<compared<R, OrNan, joined::with_or>>(type);
    if (join == "xor") return of_numbers<compared<R, OrNan, joined::with_xor>>(type);
    return of_numbers<compared<R, OrNan, joined::no>>(type);
}
inline action comparison(const std::string& name, const std::string& join, const std::string& type) {
    if (name == "lt" || name == "lo") return comparison<relation::lt, false>(join, type);
    if (name == "le" || name == "ls") return comparison<relation::le, false>(join, type);
    if (name == "gt" || name == "hi") return comparison<relation::gt, false>(join, type);
    if (name == "ge" || name == "hs") return comparison<relation::ge, false>(join, type);
    if (name == "eq") return comparison<relation::eq, false>(join, type);
    if (name == "ne") return comparison<relation::ne, false>(join, type);
    if (name == "ltu") return comparison<relation::lt, true>(join, type);
    if (name == "leu") return comparison<relation::le, true>(join, type);
    if (name == "gtu") return comparison<relation::gt, true>(join, type);
    if (name == "geu") return comparison<relation::ge, true>(join, type);
    if (name == "equ") return comparison<relation::eq, true>(join, type);
    if (name == "neu") return comparison<relation::ne, true>(join, type);
    if (name == "num") return comparison<relation::num, false>(join, type);
    if (name == "nan") return comparison<relation::nan, false>(join, type);
    return nullptr;
}

template <rounded R, bool Saturated, class To>
struct converted {
    template <class From>
    static void of(thread& t, const instruction& i) {
        convert<R, Saturated, To, From>(t, i);
    }
};
template <rounded R, bool Saturated>
action conversion(const std::string& to, const std::string& from) {
    if (to == "f32") return of_numbers<converted<R, Saturated, float>>(from);
    if (to == "f64") return of_numbers<converted<R, Saturated, double>>(from);
    if (to == "s64") return of_numbers<converted<R, false, std::int64_t>>(from);
    if (to == "u64") return of_numbers<converted<R, false, std::uint64_t>>(from);
    if (to == "s32") return of_numbers<converted<R, false, std::int32_t>>(from);
    if (to == "u32") return of_numbers<converted<R, false, std::uint32_t>>(from);
    if (to == "s16") return of_numbers<converted<R, false, std::int16_t>>(from);
    if (to == "u16") return of_numbers<converted<R, false, std::uint16_t>>(from);
    if (to == "s8") return of_numbers<converted<R, false, std::int8_t>>(from);
    if (to == "u8") return of_numbers<converted<R, false, std::uint8_t>>(from);
    return nullptr;
}
}  // namespace detail

inline action action_of(const std::vector<std::string>& opcode, instruction& to) {
    using namespace detail;
    const std::string& name = opcode[0];
    const std::string& type = opcode.back();
    const auto has = [&](const char* what) {
        for (const std::string& part : opcode) {
            if (part == what) return true;
        }
        return false;
    };
    const bool floats = type[0] == 'f';
    if (name == "call") return &call;
    if (name == "bra") return &jump;
    if (name == "ret" || name == "exit") return &back;
    if (name == "trap") return &trapped;
    if (name == "membar" || name == "fence") return &nothing;
    if (name == "cvta" && has("shared")) return has("to") ? action{&into_shared} : action{&out_of_shared};
    if (name == "cvta") return &copy_bits;
    if (name == "mov") return to.parts == nullptr ? action{&copy_bits} : of_numbers<moved>(type);
    if (name == "ld" || name == "st") {
        if (has("async")) return type == "u32" || type == "b32" ? action{&send_word} : nullptr;
        if (has("shared::cluster")) return nullptr;
        if (name == "ld") return has("shared") ? of_numbers<loaded<space::shared>>(type) : of_numbers<loaded<space::other>>(type);
        return has("shared") ? of_numbers<stored<space::shared>>(type) : of_numbers<stored<space::other>>(type);
    }
    if (name == "atom") {
        if (has("shared") || !has("add")) return nullptr;
        return of_integers<added_at_once<plus>>(type);
    }
    if (has("rz") || has("rp") || (has("rm") && name != "fma")) return nullptr;
    if (name == "add") return has("cc") ? nullptr : of_numbers<binary<plus>>(type);
    if (name == "sub") return has("cc") ? nullptr : of_numbers<binary<minus>>(type);
    if (name == "mul") {
        if (floats) return of_floats<binary<times>>(type);
        if (has("wide")) return of_wide_integers<times_wide<false>>(type);
        return has("hi") ? of_integers<times_high<false>>(type) : of_integers<binary<times>>(type);
    }
    if (name == "mad" || name == "fma") {
        if (floats && has("rm")) return of_floats<fused<fma_rounded<FE_DOWNWARD>>>(type);
        if (floats) return of_floats<fused<fma_rounded<FE_TONEAREST>>>(type);
        if (has("wide")) return of_wide_integers<times_wide<true>>(type);
        return has("hi") ? of_integers<times_high<true>>(type) : of_integers<fused<times_plus>>(type);
    }
    if (name == "div") return of_numbers<binary<over>>(type);
    if (name == "rem") return of_integers<binary<remainder>>(type);
    if (name == "min") return has("NaN") ? nullptr : of_numbers<binary<least>>(type);
    if (name == "max") return has("NaN") ? nullptr : of_numbers<binary<greatest>>(type);
    if (name == "abs") return of_numbers<unary<absolute>>(type);
    if (name == "neg") return of_numbers<unary<negative>>(type);
    if (name == "and") return of_bits<binary<both_bits>>(type);
    if (name == "or") return of_bits<binary<any_bits>>(type);
    if (name == "xor") return of_bits<binary<other_bits>>(type);
    if (name == "not") return of_bits<unary<no_bits>>(type);
    if (name == "shl") return of_integers<shift_left>(type);
    if (name == "shr") return of_integers<shift_right>(type[0] == 'b' ? "u" + type.substr(1) : type);
    if (name == "bfi") return type == "b32" ? &bits_put_in::of<std::uint32_t> : &bits_put_in::of<std::uint64_t>;
    if (name == "prmt") return opcode.size() == 2 ? action{&permute_bytes} : nullptr;
    if (name == "popc") return of_integers<counted_bits_of_set>(type);
    if (name == "clz") return of_integers<counted_leading_zeros>(type);
    if (name == "selp") return of_numbers<chosen>(type);
    if (name == "setp") return comparison(opcode[1], opcode[2], type);
    if (name == "rcp") return type == "f64" && has("approx") ? &unary<rough_reciprocal>::of<double> : of_floats<unary<reciprocal>>(type);
    if (name == "rsqrt") return type == "f64" ? &unary<rough_reciprocal_root>::of<double> : of_floats<unary<reciprocal_root>>(type);
    if (name == "sqrt") return of_floats<unary<root>>(type);
    if (name == "ex2") return type == "f32" ? of_floats<unary<power_of_2>>(type) : nullptr;
    if (name == "lg2") return type == "f32" ? of_floats<unary<log_2>>(type) : nullptr;
    if (name == "cvt") {
        const std::string& into = opcode[opcode.size() - 2];
        if (into == "bf16x2") return type == "f32" && opcode[1] == "rn" ? action{&two_bfloat16} : nullptr;
        if (has("sat")) return conversion<rounded::no, true>(into, type);
        if (has("rni")) return conversion<rounded::nearest, false>(into, type);
        if (has("rzi")) return conversion<rounded::zero, false>(into, type);
        if (has("rmi")) return conversion<rounded::down, false>(into, type);
        if (has("rpi")) return conversion<rounded::up, false>(into, type);
        return conversion<rounded::no, false>(into, type);
    }
    if (name == "shfl") {
        to.target = opcode[2][0];  // up, down, bfly or idx
        return &shuffle;
    }
    if (name == "bar") return has("warp") ? action{&sync_warp} : has("sync") ? action{&sync_block} : nullptr;
    if (name == "barrier" && has("cluster")) return has("arrive") ? action{&arrive_cluster} : action{&wait_cluster};
    if (name == "mapa") return &other_block;
    if (name == "mbarrier") {
        if (has("init")) return &prepare_arrivals;
        if (has("expect_tx")) return &expect_bytes;
        return has("try_wait") && has("parity") ? action{&look_for_arrivals} : nullptr;
    }
    if (name == "cp" && has("async")) {
        if (has("commit_group")) return &close_group;
        if (has("wait_group")) return &wait_for_groups;
        return &copy_later;
    }
    return nullptr;
}

// A shuffle (its clamp and segment mask in the third operand), or a barrier of the warp.
inline void machine::exchange(block& in, int first, thread& any) {
    const std::uint32_t mask = any.mask;
    std::uint64_t sent[32] = {};
    for (int lane = 0; lane < 32; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        thread& t = in.threads[static_cast<std::size_t>(first + lane)];
        sent[lane] = detail::bits(t, t.met->args[0]);
    }
    for (int lane = 0; lane < 32; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        thread& t = in.threads[static_cast<std::size_t>(first + lane)];
        const instruction& i = *t.met;
        t.state = waiting::no;
        if (i.run != &detail::shuffle) continue;
        const auto b = static_cast<int>(detail::get<std::uint32_t>(t, i.args[1]) & 31u);
        const auto c = detail::get<std::uint32_t>(t, i.args[2]);
        const int segment = static_cast<int>(c >> 8 & 31u), clamp = static_cast<int>(c & 31u);
        const int most = (lane & segment) | (clamp & ~segment);
        const int least = lane & segment;
        int from = lane;
        bool inside = false;
        switch (i.target) {
            case 'u': from = lane - b; inside = from >= most; break;
            case 'd': from = lane + b; inside = from <= most; break;
            case 'b': from = lane ^ b; inside = from <= most; break;
            default: from = least | (b & ~segment); inside = from <= most; break;
        }
        if (!inside) from = lane;
        if ((mask >> from & 1) == 0) fail(t, "a shuffle from a lane that is not in the mask");
        detail::put<std::uint32_t>(t, i.to, static_cast<std::uint32_t>(sent[from]));
        detail::put<bool>(t, i.also, inside);
    }
}

}  // namespace emulator
