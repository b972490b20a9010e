// Shapes: where sequences (and groups of sequences) lie in flat memory, and which entries count.
//
//   ragged(cu_seqlens)             row s is [cu[s], cu[s+1]): packed sequences, or groups of any size, 0 and 1 included
//   ragged(cu_seqlens, extent)     the same without looking at the offsets beforehand: in a device's memory, the only form
//   padded{rows, width, stride}    row s is [s·stride, s·stride + width)
//   shape.where(mask)              the same rows; entry i counts where mask[i] is not 0 (holes allowed)
//
// Every shape gives rows(), begin(s), end(s), extent() (how many entries its arrays must have). Sizes are 64-bit.
// A masked entry is never read into a result: it may hold NaN (R1.12).
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

// A pointer and a size over contiguous memory that somebody else owns. Made from anything with data() and size().
template <class T>
class view {
public:
    view() = default;
    GRPO_HD constexpr view(T* data, std::int64_t size) : data_(data), size_(size) {}

    template <class Container>
        requires(!std::same_as<std::remove_cvref_t<Container>, view> &&
                 !std::same_as<std::remove_cvref_t<Container>, view<std::remove_const_t<T>>>) && requires(Container& c) {
            { c.data() } -> std::convertible_to<T*>;
            c.size();
        }
    constexpr view(Container&& c) : data_(c.data()), size_(static_cast<std::int64_t>(c.size())) {}

    template <std::size_t N>
    GRPO_HD constexpr view(T (&array)[N]) : data_(array), size_(static_cast<std::int64_t>(N)) {}

    // A view of changeable entries is also a view of constant ones.
    template <class U>
        requires std::same_as<const U, T>
    GRPO_HD constexpr view(const view<U>& other) : data_(other.data()), size_(other.size()) {}

    GRPO_HD constexpr T* data() const { return data_; }
    GRPO_HD constexpr std::int64_t size() const { return size_; }
    GRPO_HD constexpr bool empty() const { return size_ == 0; }
    GRPO_HD constexpr T& operator[](std::int64_t i) const { return data_[i]; }

private:
    T* data_ = nullptr;
    std::int64_t size_ = 0;
};

template <class Container>
view(Container&& c) -> view<std::remove_reference_t<decltype(*c.data())>>;
template <class T, std::size_t N>
view(T (&)[N]) -> view<T>;
template <class T>
view(T*, std::int64_t) -> view<T>;

// Flat position i, with V::lanes entries side by side of which the first `count` exist (the others only pad the pack).
template <class V>
struct cursor {
    static constexpr int lanes = scalar_traits<V>::lanes;
    std::int64_t i;
    int count = lanes;

    template <class T>
    GRPO_HD V load(const T* p) const {
        if constexpr (lanes == 1) {
            return static_cast<V>(p[i]);
        } else {
            return scalar_traits<V>::load(p + i, count);
        }
    }
    template <class T>
    GRPO_HD void store(T* p, const V& x) const {
        if constexpr (lanes == 1) {
            p[i] = static_cast<T>(x);
        } else {
            scalar_traits<V>::store(p + i, x, count);
        }
    }
    // store() for memory that is not read again soon, which then need not be read before it is written; visible to other
    // threads after detail::finish_stores().
    template <class T>
    GRPO_HD void store_past_cache(T* p, const V& x) const {
        if constexpr (requires { scalar_traits<V>::store_past_cache(p + i, x, count); }) {
            scalar_traits<V>::store_past_cache(p + i, x, count);
        } else {
            store(p, x);
        }
    }
    // The same lanes at another position.
    GRPO_HD cursor at(std::int64_t other) const { return {other, count}; }
    // Asks for memory eight cache lines further on, which may lie beyond the end.
    template <class T>
    GRPO_HD void prefetch([[maybe_unused]] const T* p) const {
#if !defined(__CUDA_ARCH__)
        if constexpr (lanes > 1) {
            __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p + i) + 512));
        }
#endif
    }
    // Which of the existing lanes have a mask entry other than 0.
    template <class M>
    GRPO_HD mask_t<V> marked(const M* mask) const {
        if constexpr (lanes == 1) {
            return mask[i] != M(0);
        } else {
            return scalar_traits<V>::marked(mask + i, count);
        }
    }
    GRPO_HD mask_t<V> existing() const {
        if constexpr (lanes == 1) {
            return true;
        } else {
            return scalar_traits<V>::first(count);
        }
    }
};

// A cursor all of whose lanes exist, which the compiler then knows.
template <class V>
struct whole_cursor {
    static constexpr int lanes = scalar_traits<V>::lanes;
    static constexpr int count = lanes;
    std::int64_t i;

    GRPO_HD operator cursor<V>() const { return {i}; }
    template <class T>
    GRPO_HD V load(const T* p) const {
        return cursor<V>{i}.load(p);
    }
    template <class T>
    GRPO_HD void store(T* p, const V& x) const {
        cursor<V>{i}.store(p, x);
    }
    template <class T>
    GRPO_HD void store_past_cache(T* p, const V& x) const {
        cursor<V>{i}.store_past_cache(p, x);
    }
    template <class T>
    GRPO_HD void prefetch(const T* p) const {
        cursor<V>{i}.prefetch(p);
    }
    GRPO_HD mask_t<V> existing() const { return cursor<V>{i}.existing(); }
    GRPO_HD whole_cursor at(std::int64_t other) const { return {other}; }
};

namespace detail {
// f(0), ..., f(K - 1), unrolled at every level of optimisation.
template <int K, class F>
GRPO_HD void repeat(F&& f) {
    if constexpr (K > 0) {
        repeat<K - 1>(f);
        f(K - 1);
    }
}

GRPO_HD bool any(bool mask) { return mask; }

template <class V>
GRPO_HD void finish_stores() {
    if constexpr (requires { scalar_traits<V>::finish_stores(); }) scalar_traits<V>::finish_stores();
}

// The first lane set in a mask of which at least one is.
template <class V>
GRPO_HD int first_lane(const mask_t<V>& mask) {
    if constexpr (scalar_traits<V>::lanes == 1) {
        return 0;
    } else {
        return scalar_traits<V>::first_lane(mask);
    }
}
}  // namespace detail

template <class Shape, class M>
struct masked;

namespace detail {

// How many of n entries are not 0. Byte masks eight at a time: a byte's top bit of (x & 0x7f..) + 0x7f.. | x is set
// exactly where the byte is not 0, and a multiplication adds the eight of them up. Not inlined: its constants would take
// the registers of the loop that follows.
template <class M>
GRPO_HD_WHOLE std::int64_t count_nonzero(const M* p, std::int64_t n) {
    std::int64_t count = 0;
    std::int64_t i = 0;
    if constexpr (sizeof(M) == 1) {
        constexpr std::uint64_t low = 0x7f7f7f7f7f7f7f7fu;
        constexpr std::uint64_t ones = 0x0101010101010101u;
        for (; i + 8 <= n; i += 8) {
            std::uint64_t x;
            __builtin_memcpy(&x, p + i, 8);
            const std::uint64_t set = ((((x & low) + low) | x) >> 7) & ones;
            count += static_cast<std::int64_t>((set * ones) >> 56);
        }
    }
    for (; i < n; ++i) count += p[i] != M(0) ? 1 : 0;
    return count;
}

// What every shape shares: all entries active unless masked, and .where(mask).
template <class Self>
struct shape_base {
    template <class V>
    GRPO_HD mask_t<V> active(cursor<V> at) const {
        return at.existing();
    }
    GRPO_HD std::int64_t count_active(std::int64_t row) const {
        const Self& self = static_cast<const Self&>(*this);
        return self.end(row) - self.begin(row);
    }
    // Only entries with mask[i] != 0 count. M: bool, an 8-bit integer or any arithmetic type.
    template <class M>
    masked<Self, M> where(view<M> mask) const;
    template <class Container>
    auto where(const Container& mask) const {
        static_assert(requires { view(mask); },
                      "grpo: a mask is a container with data() and size(); std::vector<bool> has no memory to view, "
                      "use std::vector<std::uint8_t>");
        return where(view(mask));
    }
};

}  // namespace detail

// Rows by offsets: cu has rows + 1 entries, cu[0] first, never falling. I: int32 or int64.
template <class I = const std::int64_t>
struct ragged : detail::shape_base<ragged<I>> {
    static_assert(std::is_integral_v<I> && sizeof(I) >= 4, "grpo: cu_seqlens must be int32 or int64 offsets");
    view<I> cu;
    std::int64_t given_extent = -1;

    explicit ragged(view<I> cu_seqlens) : cu(cu_seqlens) {}
    // Offsets that the host need not look at, or cannot, since they lie in another memory: `extent` is the last of them.
    ragged(view<I> cu_seqlens, std::int64_t extent) : cu(cu_seqlens), given_extent(extent) {}
    template <class Container>
        requires requires(const Container& c) { c.data(); }
    explicit ragged(const Container& cu_seqlens) : cu(cu_seqlens) {}
    template <class Other>
    explicit ragged(const Other&) {
        static_assert(sizeof(Other) == 0, "grpo: ragged() takes cu_seqlens: a container of offsets, rows + 1 of them");
    }

    GRPO_HD std::int64_t rows() const { return cu.size() == 0 ? 0 : cu.size() - 1; }
    GRPO_HD std::int64_t begin(std::int64_t row) const { return static_cast<std::int64_t>(cu[row]); }
    GRPO_HD std::int64_t end(std::int64_t row) const { return static_cast<std::int64_t>(cu[row + 1]); }
    GRPO_HD std::int64_t extent() const {
        if (given_extent >= 0) return given_extent;
        return rows() == 0 ? 0 : static_cast<std::int64_t>(cu[rows()]);
    }

    // O(rows): offsets must start at 0 and never fall. Not looked at where the extent was given.
    problem validate(const char* function) const {
        if (const problem p = detail::null_pointer(function, "cu_seqlens", cu.data(), cu.size())) return p;
        if (given_extent >= 0) return {};
        if (!cu.empty() && cu[0] != 0) {
            return detail::complain(function, "cu_seqlens", "starts at %lld, but must start at 0",
                                    static_cast<long long>(cu[0]));
        }
        for (std::int64_t s = 0; s < rows(); ++s) {
            if (cu[s + 1] < cu[s]) {
                return detail::complain(function, "cu_seqlens", "falls from %lld to %lld at row %lld",
                                        static_cast<long long>(cu[s]), static_cast<long long>(cu[s + 1]),
                                        static_cast<long long>(s));
            }
        }
        return {};
    }
};

template <class Container>
ragged(const Container& c) -> ragged<const std::remove_cvref_t<decltype(*c.data())>>;
template <class I>
ragged(view<I>) -> ragged<I>;
template <class I>
ragged(view<I>, std::int64_t) -> ragged<I>;
template <class Other>
    requires(!requires(const Other& c) { c.data(); })
ragged(const Other&) -> ragged<>;

// Rows of equal width, `stride` entries apart (stride 0 means width). Also: groups of equal size.
struct padded : detail::shape_base<padded> {
    std::int64_t n = 0;
    std::int64_t width = 0;
    std::int64_t stride = 0;

    GRPO_HD constexpr padded(std::int64_t rows, std::int64_t row_width, std::int64_t row_stride = 0)
        : n(rows), width(row_width), stride(row_stride == 0 ? row_width : row_stride) {}

    GRPO_HD std::int64_t rows() const { return n; }
    GRPO_HD std::int64_t begin(std::int64_t row) const { return row * stride; }
    GRPO_HD std::int64_t end(std::int64_t row) const { return row * stride + width; }
    GRPO_HD std::int64_t extent() const { return n == 0 ? 0 : (n - 1) * stride + width; }

    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "rows", static_cast<double>(n), 0),
                                detail::below(function, "width", static_cast<double>(width), 0),
                                detail::below(function, "stride", static_cast<double>(stride), n > 1 ? static_cast<double>(width) : 0));
    }
};

// A shape of which only some entries count.
template <class Shape, class M>
struct masked : Shape {
    view<M> mask;

    masked(const Shape& shape, view<M> where) : Shape(shape), mask(where) {}

    template <class V>
    GRPO_HD mask_t<V> active(cursor<V> at) const {
        return at.marked(mask.data());
    }
    GRPO_HD std::int64_t count_active(std::int64_t row) const {
        return detail::count_nonzero(mask.data() + this->begin(row), this->end(row) - this->begin(row));
    }
    problem validate(const char* function) const {
        if (const problem p = Shape::validate(function)) return p;
        if (const problem p = detail::wrong_size(function, "mask", mask.size(), this->extent(), "positions")) return p;
        return detail::null_pointer(function, "mask", mask.data(), mask.size());
    }
};

template <class Self>
template <class M>
masked<Self, M> detail::shape_base<Self>::where(view<M> mask) const {
    return masked<Self, M>(static_cast<const Self&>(*this), mask);
}

template <class S>
concept shape = requires(const S& s, std::int64_t row, cursor<float> at) {
    { s.rows() } -> std::convertible_to<std::int64_t>;
    { s.begin(row) } -> std::convertible_to<std::int64_t>;
    { s.end(row) } -> std::convertible_to<std::int64_t>;
    { s.extent() } -> std::convertible_to<std::int64_t>;
    { s.active(at) } -> std::same_as<bool>;
};

// How many there are, counted in integers. `counts` of parts add up to the counts of the whole batch, so a global
// denominator is one all-reduce away (R1.27, R1.28).
struct totals {
    std::int64_t sequences = 0;  // all rows
    std::int64_t nonempty = 0;   // rows with at least one active entry
    std::int64_t tokens = 0;     // active entries

    friend totals operator+(totals a, const totals& b) {
        a.sequences += b.sequences;
        a.nonempty += b.nonempty;
        a.tokens += b.tokens;
        return a;
    }
};

template <shape Shape>
totals count(const Shape& shape) {
    totals t;
    t.sequences = shape.rows();
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        const std::int64_t n = shape.count_active(row);
        t.tokens += n;
        t.nonempty += n > 0 ? 1 : 0;
    }
    return t;
}

}  // namespace grpo::inline v0
