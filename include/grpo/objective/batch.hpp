// A batch: a shape and the arrays over it, each under the name of the input it is.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>
#include <grpo/term/compose.hpp>

namespace grpo::inline v0 {

namespace detail {

template <class T>
inline constexpr bool is_field = false;
template <class Tag, class T, bool BySequence>
inline constexpr bool is_field<field<Tag, T, BySequence>> = true;

template <class V>
    requires(scalar_traits<V>::lanes > 1)
GRPO_HD mask_t<V> is_nonfinite(const V& x) {
    return scalar_traits<V>::nonfinite(x);
}

// NaN by bit pattern where there is one value; for packs an infinity is told apart by comparing it.
GRPO_HD bool is_nan(float x) { return (detail::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u; }
GRPO_HD bool is_nan(double x) {
    return (detail::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
}
template <class V>
    requires(scalar_traits<V>::lanes > 1)
GRPO_HD mask_t<V> is_nan(const V& x) {
    const V zero(constant<V>(0));
    return both(is_nonfinite(x), negation(either(x < zero, zero < x)));
}

// How many inputs of a set are numbered below `bit`: the slope's place among the differentiable ones.
GRPO_HD constexpr int slot(unsigned set, unsigned bit) {
    int n = 0;
    for (unsigned b = 1; b != 0 && b < bit; b <<= 1) n += (set & b) != 0 ? 1 : 0;
    return n;
}

}  // namespace detail

template <shape Shape, class... Fields>
struct batch : Fields... {
    static_assert((detail::is_field<Fields> && ...),
                  "grpo: a batch holds named inputs: grpo::logp(x), grpo::advantage(by_sequence(a)), ...");
    Shape layout;

    static constexpr unsigned has = (0u | ... | Fields::tag::bit);
    static constexpr unsigned differentiable = (0u | ... | (Fields::tag::differentiable ? Fields::tag::bit : 0u));
    // Terms are computed in float, or in double as soon as one input is double.
    using compute = std::conditional_t<(std::same_as<typename Fields::storage, double> || ...), double, float>;

    explicit batch(const Shape& s, const Fields&... fields) : Fields(fields)..., layout(s) {}

    // Fills the record's fields in `Used`: those of the whole row, and those of one position. Differentiable ones become
    // variables if the record's scalar carries derivatives. `probe` becomes non-finite if any of them is. Fields in
    // `Optional` may be null and are then 0.
    template <unsigned Used, unsigned Optional = 0, class V, class Record>
    GRPO_HD void read_row(std::int64_t row, Record& record, V& probe) const {
        (read_field<Used, Optional, true, V, Record, Fields>(cursor<V>{row}, record, probe), ...);
    }
    template <unsigned Used, unsigned Optional = 0, class V, class Record>
    GRPO_HD void read_token(cursor<V> at, Record& record, V& probe) const {
        (read_field<Used, Optional, false, V, Record, Fields>(at, record, probe), ...);
    }

    // What a record holds of the inputs in `used`, without derivatives.
    template <unsigned Used, class From, class To>
    GRPO_HD static void copy_values(const From& from, To& to) {
        (copy_field<Used, Fields>(from, to), ...);
    }

    // The inputs whose pointer is not null: what diagnostics may look at beyond what the term needs.
    GRPO_HD unsigned present() const {
        return (0u | ... | (static_cast<const Fields&>(*this).data.data() != nullptr ? Fields::tag::bit : 0u));
    }

    // f(name, entries) for every input in `used`.
    template <class F>
    void each_input(unsigned used, F&& f) const {
        ((void((used & Fields::tag::bit) != 0 ? (f(Fields::tag::name, static_cast<const Fields&>(*this).data), 0) : 0)), ...);
    }

    // Null pointers and sizes of the inputs in `used`.
    problem validate(const char* function, unsigned used) const {
        problem p = layout.validate(function);
        ((p ? void() : void(p = validate_field<Fields>(function, used))), ...);
        return p;
    }

private:
    template <unsigned Used, class Field, class From, class To>
    GRPO_HD static void copy_field(const From& from, To& to) {
        using which = typename Field::tag;
        if constexpr ((Used & which::bit) != 0) which::of(to) = value(which::of(from));
    }
    template <unsigned Used, unsigned Optional, bool OfRow, class V, class Record, class Field>
    GRPO_HD void read_field(cursor<V> at, Record& record, V& probe) const {
        using which = typename Field::tag;
        constexpr bool of_row = Field::by_sequence;
        if constexpr ((Used & which::bit) != 0 && of_row == OfRow) {
            const auto* entries = static_cast<const Field&>(*this).data.data();
            if constexpr ((Optional & which::bit) != 0) {
                if (entries == nullptr) return;
            }
            V x(constant<V>(0));
            if constexpr (of_row) {
                x = V(static_cast<element_t<V>>(entries[at.i]));
            } else {
                x = at.load(entries);
            }
            if constexpr (std::same_as<which, input::logp_rollout>) {
                probe = probe + math::select<V>(detail::is_nan(x), V(constant<V>(0)), x);  // NaN means missing (R1.17)
            } else {
                probe = probe + x;
            }
            auto& place = which::of(record);
            using S = std::remove_reference_t<decltype(place)>;
            if constexpr (which::differentiable && detail::differentiable<S>) {
                place = S::variable(x, detail::slot(Used & differentiable, which::bit));
            } else {
                place = S(x);
            }
        }
    }

    template <class Field>
    problem validate_field(const char* function, unsigned used) const {
        if ((used & Field::tag::bit) == 0) return {};
        const auto& entries = static_cast<const Field&>(*this).data;
        constexpr bool rows = Field::by_sequence;
        if (const problem p = detail::wrong_size(function, Field::tag::name, entries.size(),
                                                 rows ? layout.rows() : layout.extent(),
                                                 rows ? "sequences" : "positions")) {
            return p;
        }
        return detail::null_pointer(function, Field::tag::name, entries.data(), entries.size());
    }
};

namespace detail {
template <class Batch>
struct record_of;
template <class Shape, class First, class... Fields>
struct record_of<batch<Shape, First, Fields...>> {
    template <class S>
    using type = typename First::tag::template record<S>;
};

// Specialise for a record to name, at compile time, the input that a term needs and a batch lacks.
template <class Record>
struct input_sentences {
    template <unsigned Missing>
    static consteval void check() {}
};
}  // namespace detail

template <class Shape, class... Fields>
batch(const Shape&, const Fields&...) -> batch<Shape, Fields...>;

}  // namespace grpo::inline v0
