// Rows of logits and how they become z, whose softmax is the policy:
//
//   z = softcap(scale · (logits + bias)) / temperature,   softcap(x) = c tanh(x / c)
//
// in this order, in every function of the head, so that old, new and reference log-probabilities share it (R1.32). A logit of
// -inf (a top-k or top-p filter) stays -inf: probability 0, gradient 0, also at the start of a row.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

// Row-major logits: `rows` tokens, `vocabulary` entries each, rows `stride` entries apart (0: side by side).
template <class T>
struct logits_view {
    view<const T> data;
    std::int64_t rows = 0;
    std::int64_t vocabulary = 0;
    std::int64_t stride = 0;
    const std::uint8_t* mask = nullptr;  // rows that count, see where(); null: all

    GRPO_HD padded layout() const { return padded(rows, vocabulary, stride); }
    // Only rows with mask[row] != 0 count. The others are not read (they may hold NaN, their target any number); what is
    // computed of them is +0.0. The mask: one bool or 8-bit integer per row, in the caller's memory.
    template <class Container>
    logits_view where(const Container& entries) const {
        const view all(entries);
        static_assert(sizeof(all[0]) == 1, "grpo: a mask over rows of logits has bools or 8-bit integers");
        detail::require(detail::wrong_size("logits", "mask", all.size(), rows, "tokens"));
        logits_view masked = *this;
        masked.mask = reinterpret_cast<const std::uint8_t*>(all.data());
        return masked;
    }
    GRPO_HD bool active(std::int64_t row) const { return mask == nullptr || mask[row] != 0; }

    problem validate(const char* function) const {
        return detail::first_of(layout().validate(function),
                                detail::below(function, "vocabulary", static_cast<double>(vocabulary), 1),
                                detail::wrong_size(function, "logits", data.size(), layout().extent(), "positions"),
                                detail::null_pointer(function, "logits", data.data(), data.size()));
    }
};
template <class Container>
auto logits(const Container& data, std::int64_t rows, std::int64_t vocabulary, std::int64_t stride = 0) {
    const view all(data);
    using T = std::remove_cvref_t<decltype(all[0])>;
    return logits_view<T>{{all.data(), all.size()}, rows, vocabulary, stride};
}

// What lies between a model's output and its policy.
struct head_options {
    double temperature = 1.0;
    double scale = 1.0;           // multiplies the logits: a model's own logit scale
    double softcap = 0.0;         // c tanh(x / c); 0: none
    view<const float> bias = {};  // one per column, added first; empty: none
    // Columns that exist: those from here on only pad the row, are not read, and get the gradient +0.0. 0: all.
    std::int64_t vocabulary = 0;
    // Where the columns are a slice of a vocabulary (see head/shard.hpp): the token of column 0, and how many there are in all.
    std::int64_t first_token = 0;
    std::int64_t slice_of = 0;  // 0: not a slice

    std::int64_t columns(std::int64_t all) const { return vocabulary == 0 ? all : vocabulary; }
    // How many tokens there are.
    std::int64_t tokens(std::int64_t all) const { return slice_of == 0 ? columns(all) : slice_of; }

    problem validate(const char* function, std::int64_t all) const {
        if (!(temperature > 0)) return detail::not_above(function, "temperature", temperature, 0.0);
        if (!(scale > 0)) return detail::not_above(function, "scale", scale, 0.0);
        if (!(softcap >= 0)) return detail::below(function, "softcap", softcap, 0.0);
        if (vocabulary < 0 || vocabulary > all) {
            return detail::complain(function, "options.vocabulary", "is %lld, but the logits have %lld columns",
                                    static_cast<long long>(vocabulary), static_cast<long long>(all));
        }
        if (first_token < 0) return detail::below(function, "first_token", static_cast<double>(first_token), 0);
        if (first_token + columns(all) > tokens(all)) {
            return detail::complain(function, "slice_of", "is %lld, but the columns reach to token %lld",
                                    static_cast<long long>(slice_of), static_cast<long long>(first_token + columns(all)));
        }
        if (bias.empty()) return {};
        return detail::first_of(detail::wrong_size(function, "bias", bias.size(), columns(all), "columns"),
                                detail::null_pointer(function, "bias", bias.data(), bias.size()));
    }
};

namespace detail {

// What the head computes in: float, or double for double.
template <class T>
using head_compute = std::conditional_t<std::same_as<T, double>, double, float>;

// How a row is read. Plain: z = logit · factor. Shaped: with a bias or a softcap, z = shaped(logit) · factor.
struct plain_reading {
    static constexpr bool plain = true;
    double factor = 1;

    plain_reading() = default;
    GRPO_HD explicit plain_reading(const head_options& o) : factor(o.scale / o.temperature) {}

    template <class T, class Cursor>
    GRPO_HD auto read(const T* data, const Cursor& at, std::int64_t) const {
        return at.load(data);
    }
    template <class V>
    GRPO_HD V slope(const V&) const {
        return V(constant<V>(1));
    }
};

struct shaped_reading {
    static constexpr bool plain = false;
    double factor = 1;
    double scale = 1;
    double cap = 0;
    const float* bias = nullptr;

    shaped_reading() = default;
    GRPO_HD explicit shaped_reading(const head_options& o)
        : factor(1.0 / o.temperature), scale(o.scale), cap(o.softcap), bias(o.bias.data()) {}

    // `begin`: where the row does, so that at.i - begin is the column.
    template <class T, class Cursor>
    GRPO_HD auto read(const T* data, const Cursor& at, std::int64_t begin) const {
        auto x = at.load(data);
        using V = decltype(x);
        if (bias != nullptr) x = x + at.at(at.i - begin).load(bias);
        x = x * V(constant<V>(scale));
        if (!(cap > 0)) return x;
        const V capped = V(constant<V>(cap)) * math::tanh(V(x * V(constant<V>(1.0 / cap))));
        return math::select<V>(x < V(constant<V>(lowest)), x, capped);
    }
    // d read / d logit, where read gave y.
    template <class V>
    GRPO_HD V slope(const V& y) const {
        const V one(constant<V>(1));
        if (!(cap > 0)) return V(constant<V>(scale));
        // Not below -1: a y of -inf has the slope 0.
        return V(constant<V>(scale)) * (one - math::square(math::max(V(y * V(constant<V>(1.0 / cap))), V(-one))));
    }
};

// The reading that the options ask for, given to f.
template <class F>
decltype(auto) with_reading(const head_options& o, F&& f) {
    if (o.bias.empty() && o.softcap == 0) return f(plain_reading(o));
    return f(shaped_reading(o));
}

// A row of logits: where it lies and how it is read.
template <class T, class Reading>
struct logits_row {
    using reading_type = Reading;
    const T* data = nullptr;
    std::int64_t begin = 0;
    std::int64_t end = 0;
    Reading reading{};

    // As good as -inf beyond the row's end: below every reference, also where no logit has raised it.
    template <class Cursor>
    GRPO_HD auto operator()(const Cursor& at) const {
        const auto x = reading.read(data, at, begin);
        using V = std::remove_const_t<decltype(x)>;
        if (at.count == Cursor::lanes) return x;
        return math::select<V>(at.existing(), x, V(constant<V>(2 * lowest)));
    }
    // One entry, read as V computes it.
    template <class V>
    GRPO_HD double at(std::int64_t i) const {
        using E = element_t<V>;
        return static_cast<double>(reading.read(data, cursor<E>{i}, begin));
    }
};

// A loss needs the whole vocabulary.
inline problem check_whole(const char* function, const head_options& options) {
    if (options.slice_of == 0) return {};
    return complain(function, "slice_of", "is %lld, but must be %lld: slices go through token_logp_of_slices() and d_logits()",
                    static_cast<long long>(options.slice_of), 0LL);
}

// One target for each row.
template <class Index>
problem check_target_array(const char* function, const view<Index>& target, std::int64_t rows) {
    return first_of(wrong_size(function, "targets", target.size(), rows, "tokens"),
                    null_pointer(function, "targets", target.data(), rows));
}

// Ids of the rows that count are from 0 to vocabulary - 1. O(rows).
template <class Index, class Active>
problem check_targets(const char* function, const view<Index>& target, std::int64_t rows, std::int64_t vocabulary,
                      Active&& active) {
    if (const problem p = check_target_array(function, target, rows)) return p;
    for (std::int64_t row = 0; row < rows; ++row) {
        const auto t = static_cast<std::int64_t>(target[row]);
        if ((t < 0 || t >= vocabulary) && active(row)) {
            return complain(function, "targets", "has %lld at token %lld, but the vocabulary has %lld entries",
                            static_cast<long long>(t), static_cast<long long>(row), static_cast<long long>(vocabulary));
        }
    }
    return {};
}

template <class T>
problem check_head(const char* function, const logits_view<T>& in, const head_options& options) {
    return first_of(in.validate(function), options.validate(function, in.vocabulary));
}
template <class Index, class T>
problem check_ids(const char* function, const view<Index>& target, const logits_view<T>& in, const head_options& options) {
    return check_targets(function, target, in.rows, options.tokens(in.vocabulary),
                         [&](std::int64_t row) { return in.active(row); });
}
// What an executor's bodies will read of logits and their targets; another memory's ids are not looked at.
template <class Exec, class Index, class T>
problem check_rows_to_read(const Exec& exec, const char* function, const view<Index>& target, const logits_view<T>& in,
                           const head_options& options) {
    if constexpr (on_host<Exec>) {
        return check_ids(function, target, in, options);
    } else {
        return first_of(check_target_array(function, target, in.rows),
                        check_reach(exec, function, named("logits", in.data), named("targets", target),
                                    named("bias", options.bias), named_pointer{"mask", in.mask}));
    }
}
template <class T, class R>
problem check_reference(const char* function, const logits_view<T>& in, const logits_view<R>& ref) {
    return first_of(ref.validate(function), wrong_size(function, "logits_ref's rows", ref.rows, in.rows, "tokens"),
                    wrong_size(function, "logits_ref's vocabulary", ref.vocabulary, in.vocabulary, "logits a token"));
}

// An output or input with one entry per row that may be left out.
template <class V>
problem check_per_row(const char* function, const char* argument, const V& values, std::int64_t rows) {
    if (values.data() == nullptr && values.size() == 0) return {};
    return wrong_size(function, argument, values.size(), rows, "tokens");
}

}  // namespace detail
}  // namespace grpo::inline v0
