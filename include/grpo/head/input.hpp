// What a body of the head reads: which rows of logits, how, and whose they are.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/head/logits.hpp>
#include <grpo/head/softmax.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0::detail {

template <class T, class Reading>
GRPO_HD logits_row<T, Reading> row_of(const logits_view<T>& in, const Reading& reading, std::int64_t columns,
                                      std::int64_t row) {
    const std::int64_t begin = padded(in.rows, in.vocabulary, in.stride).begin(row);
    return {in.data.data(), begin, begin + columns, reading};
}

// A row's softmax in one read; with a reference row, the sums of their divergence as well. Not inlined, like the other
// functions that walk a whole row: then a program has each of them once.
template <softmax_wants Wants, class V, class Team, class Row, class Ref = no_reference>
GRPO_HD_WHOLE softmax_row measure_row(Team& team, const Row& row, const Ref& ref) {
    softmax_exponent<V> e(row.reading.factor);
    if constexpr (starts_near<V>) e.start(row.template at<V>(row.begin));
    const softmax_step<Wants, V, Row, Ref, keep_nothing> step{row, ref, {}, e};
    using sums = softmax_sums<Wants>;
    return softmax_row::of<sums>(stream<sums, V>(team, span_of<V>(row.data, row.begin, row.end), step));
}
// walk(span, step) of a row whose p are not kept, with an exponent that may begin near y.
template <softmax_wants Wants, bool Raises, class V, class Row, class Ref, class Walk>
GRPO_HD auto with_step(const Row& row, const Ref& ref, [[maybe_unused]] double y, const Walk& walk) {
    softmax_exponent<V> e(row.reading.factor);
    if constexpr (starts_near<V>) e.start(y);
    const softmax_step<Wants, V, Row, Ref, keep_nothing, Raises> step{row, ref, {}, e};
    return walk(span_of<V>(row.data, row.begin, row.end), step);
}
template <softmax_wants Wants, class V, class Team, class Row, class Ref = no_reference>
GRPO_HD softmax_row measure(Team& team, const Row& row, const Ref& ref = {}) {
    // Rows that are read in a rarer way have one function for all that can be wanted.
    constexpr softmax_wants rare = softmax_wants::entropy | softmax_wants::squares;
    return measure_row<Row::reading_type::plain ? Wants : (Wants | rare), V>(team, row, ref);
}

// Whether an output of so many entries is larger than what a cache may keep for whoever reads it next.
template <class Out>
GRPO_HD bool exceeds_cache(std::int64_t entries) {
    return entries * static_cast<std::int64_t>(sizeof(Out)) > (std::int64_t{16} << 20);
}

// Whether packs of eight that are whole in one array are so at the same positions of another.
template <class A, class B>
GRPO_HD bool same_packs(const A* a, const B* b) {
    return (reinterpret_cast<std::uintptr_t>(a) / sizeof(A) - reinterpret_cast<std::uintptr_t>(b) / sizeof(B)) % 8 == 0;
}

// What becomes of a row of logits.
enum class row_use {
    active,
    masked,   // not read; what is computed of it is +0.0
    outside,  // between the rows of a shape: nothing is written either
};

// The rows of logits that count: by the logits' own mask.
struct used_by_mask {
    const std::uint8_t* mask;
    GRPO_HD row_use operator()(std::int64_t i) const {
        return mask == nullptr || mask[i] != 0 ? row_use::active : row_use::masked;
    }
    // For positions that rise: `row` is the sequence of the one before, negative at first.
    GRPO_HD row_use operator()(std::int64_t i, std::int64_t&) const { return (*this)(i); }
};

// The target's entry of a row: where it is, and what is there if that is inside of the row.
template <class T>
struct target_entry {
    std::int64_t at = -1;
    T raw = T();
};

template <class Row, class T>
GRPO_HD bool inside(const Row& row, const target_entry<T>& target) {
    return target.at >= row.begin && target.at < row.end;
}

// Which logits a body reads, and how.
template <class T, class R, class Reading, class Index, class Uses>
struct head_input {
    logits_view<T> in;
    logits_view<R> reference;  // read by bodies with a divergence alone
    Reading reading;
    std::int64_t columns;
    std::int64_t first_token;
    const Index* target;
    Uses uses;
    const std::int64_t* positions = nullptr;  // of the rows, rising, if they are some of many; null: row i is position i

    using storage = T;
    using compute = head_compute<T>;
    using row_type = logits_row<T, Reading>;
    template <bool WithKl, class V>
    using beside_type = std::conditional_t<WithKl, reference_row<V, logits_row<R, Reading>>, no_reference>;

    // Where a row of logits stands among the tokens: the index of everything that has one entry per token.
    GRPO_HD std::int64_t position(std::int64_t i) const { return positions == nullptr ? i : positions[i]; }
    GRPO_HD row_type row(std::int64_t i) const { return row_of(in, reading, columns, i); }
    // The entry of row i's target.
    GRPO_HD std::int64_t chosen(std::int64_t i) const {
        return in.layout().begin(i) + static_cast<std::int64_t>(target[position(i)]) - first_token;
    }
    GRPO_HD target_entry<T> target_of(std::int64_t i) const {
        const row_type r = row(i);
        const std::int64_t at = chosen(i);
        if (at < r.begin || at >= r.end) return {at, T()};
        return {at, r.data[at]};
    }
    // As the row reads it; -inf where there is none.
    template <class V>
    GRPO_HD double read(const row_type& r, const target_entry<T>& entry) const {
        if (!inside(r, entry)) return -HUGE_VAL;
        return row_type{&entry.raw, r.begin - entry.at, r.end - entry.at, r.reading}.template at<V>(0);
    }
    GRPO_HD bool large() const { return exceeds_cache<T>(in.layout().extent()); }
    // The reference's row beside row i, measured unless its log Σ e^z is known.
    template <bool WithKl, class V, class Team>
    GRPO_HD beside_type<WithKl, V> beside([[maybe_unused]] Team& team, [[maybe_unused]] std::int64_t i,
                                          [[maybe_unused]] const double* known = nullptr) const {
        if constexpr (WithKl) {
            const auto r = row_of(reference, reading, columns, i);
            const double lse = known != nullptr ? known[position(i)] : measure<softmax_wants::log_sum, V>(team, r).lse;
            return beside_type<true, V>(r, r.begin - in.layout().begin(i), lse);
        } else {
            return {};
        }
    }
};

// The rows of some that count, one after the other.
template <class V, class Input>
struct upcoming_rows {
    Input from;
    std::int64_t next_row;
    std::int64_t last;
    std::int64_t sequence = -1;

    GRPO_HD upcoming_rows(const Input& input, std::int64_t first, std::int64_t end)
        : from(input), next_row(first), last(end) {}
    // The next of them, if there is one.
    GRPO_HD bool next(std::int64_t& i) {
        while (next_row < last) {
            i = next_row++;
            if (from.uses(from.position(i), sequence) == row_use::active) return true;
        }
        return false;
    }
    GRPO_HD bool next(span& where) {
        std::int64_t i = 0;
        if (!next(i)) return false;
        const auto row = from.row(i);
        where = span_of<V>(row.data, row.begin, row.end);
        return true;
    }
};

// An object for the types of expressions: never defined.
template <class T>
T& of_type();

// A team's way through rows [first, last), those that follow under way meanwhile: who reads them (see exec/cuda/ahead.cuh),
// and the target of the next that counts. What is done with it waits for its memory, and not before.
// Together: whether all lanes know the target, and none is a row behind another; else the one alone that will write it does.
template <class V, class Team, class Input>
struct rows_in_range {
    using storage = typename Input::storage;
    using order_type = upcoming_rows<V, Input>;

    const Input& from;
    order_type order;
    decltype(of_type<Team>().template ahead<V>(of_type<const storage*>(), of_type<order_type>())) rows;
    bool together;
    target_entry<storage> target;

    GRPO_HD rows_in_range(Team& team, const Input& input, std::int64_t first, std::int64_t last, bool lanes_together = true)
        : from(input), order(input, first, last), rows(team.template ahead<V>(input.in.data.data(), order)),
          together(lanes_together) {
        ask();
    }
    // Asks for the target of the next row, once that of the present one has been read.
    GRPO_HD void ask() {
        std::int64_t i = 0;
        target = {};
        if (!order.next(i)) return;
        const auto row = from.row(i);
        if (together || rows.writes(span_of<V>(row.data, row.begin, row.end), from.chosen(i))) target = from.target_of(i);
    }
    // Where this lane will write the target's own entry of a row; -1: it is another lane's, or nobody's.
    GRPO_HD std::int64_t written(const typename Input::row_type& row, const span& where) const {
        return inside(row, target) && rows.writes(where, target.at) ? target.at : -1;
    }
};

// Calls f with what a body reads, under the reading that the options ask for.
template <class T, class R, class Index, class Uses, class F>
void with_input(const logits_view<T>& in, const logits_view<R>& reference, const Index* target, const head_options& options,
                const Uses& uses, F&& f, const std::int64_t* positions = nullptr) {
    with_reading(options, [&]<class Reading>(const Reading& reading) {
        f(head_input<T, R, Reading, Index, Uses>{in, reference, reading, options.columns(in.vocabulary),
                                                 options.first_token, target, uses, positions});
    });
}

}  // namespace grpo::inline v0::detail
