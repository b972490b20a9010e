// The body of evaluate_logits(): for some tokens in a row, log-probability, the loss's slopes, and the gradient over the
// logits, while the logits of the token are still in the cache.
//
//   pass 1 of token t + 1 (one read) runs together with pass 2 of token t (one write)
//
// How pass 2 gets the probabilities is chosen at compile time by what the exponent and the loss allow:
//   over the logits, of the type they are computed in   p is stored in the logits' place in pass 1, and scaled there
//   elsewhere                                           p is stored in a row of memory that each worker has
//   where the slope needs z itself (entropy, full KL, softcap), or the exponent moves inexactly   from the logits again
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/head/gradient.hpp>
#include <grpo/head/input.hpp>
#include <grpo/head/logits.hpp>
#include <grpo/head/softmax.hpp>
#include <grpo/head/token_logp.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0::detail {

// One entry per token: what the head gives to a loss, and the slopes that it gets back.
template <class C>
struct token_arrays {
    C* logp = nullptr;
    C* entropy = nullptr;
    C* kl = nullptr;
    C* d_logp = nullptr;
    C* d_entropy = nullptr;
    C* d_kl = nullptr;
};

// What the head knows of one token, the same in every lane.
template <class C>
struct token_values {
    C logp;
    C entropy;
    C kl;
};

// Evaluates the slopes of one token of a loss, whatever its term is: the streaming code exists once for all of them. The
// token's values are in its arrays.
template <class Team>
struct slopes_of_token {
    const void* rows;
    void (*call)(const void* rows, Team& team, std::int64_t row, std::int64_t tokens, std::int64_t i);

    template <class C>
    GRPO_HD softmax_slopes operator()(Team& team, const token_values<C>&, const token_arrays<C>& token, std::int64_t row,
                                      std::int64_t tokens, std::int64_t i) const {
        call(rows, team, row, tokens, i);
        return {static_cast<double>(token.d_logp[i]), static_cast<double>(token.d_entropy[i]),
                static_cast<double>(token.d_kl[i])};
    }
};
template <class Team, class Rows>
slopes_of_token<Team> erased(const Rows& rows) {
    return {&rows, [](const void* p, Team& team, std::int64_t row, std::int64_t tokens, std::int64_t i) {
                static_cast<const Rows*>(p)->one(team, row, tokens, i);
            }};
}

// The same in the registers of every lane, for teams to whom talking costs more than computing: the loss's body by value,
// with the token's own values in place of the arrays.
template <class Rows>
struct slopes_in_lane {
    Rows rows;

    template <class Team, class C>
    GRPO_HD softmax_slopes operator()(Team&, const token_values<C>& value, const token_arrays<C>&, std::int64_t row,
                                      std::int64_t tokens, std::int64_t i) const {
        token_values<C> in = value;
        token_values<C> slope{};
        Rows mine = rows;
        const auto put = [i]<class Array, class X>(Array& array, X& x) { array.data = {&x - i, i + 1}; };
        put(static_cast<field<input::logp, C, false>&>(mine.data), in.logp);
        put(static_cast<field<input::entropy, C, false>&>(mine.data), in.entropy);
        put(static_cast<field<input::full_kl, C, false>&>(mine.data), in.kl);
        put(static_cast<decltype(d_logp(view<C>()))&>(mine.outputs), slope.logp);
        put(static_cast<decltype(d_entropy(view<C>()))&>(mine.outputs), slope.entropy);
        put(static_cast<decltype(d_full_kl(view<C>()))&>(mine.outputs), slope.kl);
        serial_team alone;
        mine.one(alone, row, tokens, i);
        return {static_cast<double>(slope.logp), static_cast<double>(slope.entropy), static_cast<double>(slope.kl)};
    }
};

// The slopes as an executor's teams want them.
template <class Exec, class Rows>
auto slopes_for(const Rows& rows) {
    if constexpr (on_host<Exec>) return erased<typename Exec::team>(rows);
    else return slopes_in_lane<Rows>{rows};
}

// The rows of logits that count: by a batch's shape, whose positions they are.
template <class Shape>
struct used_by_shape {
    Shape layout;

    // The first sequence that ends beyond a position.
    GRPO_HD std::int64_t row_that_ends_after(std::int64_t i) const {
        std::int64_t low = 0;
        std::int64_t high = layout.rows();
        while (low < high) {
            const std::int64_t middle = (low + high) / 2;
            if (layout.end(middle) <= i) low = middle + 1;
            else high = middle;
        }
        return low;
    }
    GRPO_HD row_use operator()(std::int64_t i) const { return in_row(i, row_that_ends_after(i)); }
    // For positions that rise: `row` is the sequence of the one before, negative at first.
    GRPO_HD row_use operator()(std::int64_t i, std::int64_t& row) const {
        if (row < 0) row = row_that_ends_after(i);
        while (row < layout.rows() && layout.end(row) <= i) ++row;
        return in_row(i, row);
    }
    GRPO_HD row_use in_row(std::int64_t i, std::int64_t row) const {
        if (row >= layout.rows() || i < layout.begin(row)) return row_use::outside;
        return layout.active(cursor<float>{i}) ? row_use::active : row_use::masked;
    }
};

template <bool WithEntropy, bool WithKl, class Input, class Slopes, class C, class Out>
struct fused_tokens {
    static constexpr std::int64_t chunk = 8;
    static constexpr bool long_rows = true;
    GRPO_HD static constexpr bool keeps_rows() { return true; }
    using compute = typename Input::compute;

    Input from;  // whose `uses` is a used_by_shape
    Slopes slopes;
    token_arrays<C> token;
    Out* gradient;
    compute* scratch;  // a row per worker
    std::int64_t scratch_stride;

    GRPO_HD std::int64_t pieces() const { return (from.in.rows + chunk - 1) / chunk; }
    // Rows of logits [piece · chunk, (piece + 1) · chunk).
    template <class Team>
    GRPO_HD void operator()(Team& team, std::int64_t piece) const {
        using V = typename Team::template vector<compute>;
        constexpr bool stores =
            softmax_exponent<V>::moves_exactly && row_type::reading_type::plain && !WithEntropy && !WithKl;
        const std::int64_t first = piece * chunk;
        const std::int64_t last = from.in.rows - first < chunk ? from.in.rows : first + chunk;
        if constexpr (!stores) {
            walk<V, source::logits>(team, first, last);
        } else if constexpr (std::is_same_v<typename Input::storage, Out> && std::is_same_v<Out, compute>) {
            if (static_cast<const void*>(gradient) == static_cast<const void*>(from.in.data.data())) {
                walk<V, source::place>(team, first, last);
            } else {
                walk<V, source::scratch>(team, first, last);
            }
        } else {
            walk<V, source::scratch>(team, first, last);
        }
    }

    // Whether a lane writes the packs that it reads, whole.
    GRPO_HD bool writes_packs() const { return same_packs(from.in.data.data(), gradient); }
    // Rows of logits [first, last), those that follow under way meanwhile. A team of a device has other teams to wait with:
    // it writes a row as soon as it may.
    template <class Team>
    GRPO_HD void range(Team& team, std::int64_t first, std::int64_t last) const {
        using V = typename Team::template vector<compute>;
        rows_in_range<V, Team, Input> walk(team, from, first, last);
        sequence_of_token sequence;
        for (std::int64_t i = first; i < last; ++i) {
            const row_use use = find(team, sequence, from.position(i));
            if (use == row_use::masked) skip<V>(team, i);
            if (use != row_use::active) continue;
            const row_type here = from.row(i);
            const double y = from.template read<V>(here, walk.target);
            gradient_type<V, source::logits> each(here, gradient, from.template beside<WithKl, V>(team, i));
            // Without a watch for what outgrows the exponent's reference, where that is near; again if something did.
            found_row found = conclude<V, !starts_near<V>>(team, walk, i, sequence, y, each);
            if (found.overflown) found = conclude<V, true>(team, walk, i, sequence, y, each);
            const span row = span_of<V>(here.data, here.begin, here.end);
            each.take(found.scales, walk.written(here, row));
            walk.ask();
            walk.rows.sweep(row, each);
            clear<V>(team, gradient, here.end, here.begin + from.in.vocabulary);
        }
    }

private:
    // Where pass 2 has the probabilities from.
    enum class source { logits, place, scratch };
    static constexpr softmax_wants wants = wanted(WithEntropy, WithKl);
    using sums = softmax_sums<wants>;
    using row_type = typename Input::row_type;
    template <class V>
    using ref_type = typename Input::template beside_type<WithKl, V>;
    template <class V, source Source>
    using gradient_type = softmax_gradient<WithEntropy, Source != source::logits, V, row_type, ref_type<V>, Out>;

    // A row whose gradient is still to be written.
    template <class V, source Source>
    struct unfinished {
        bool any = false;
        compute* place = nullptr;  // where its p are, if in scratch
        gradient_type<V, Source> each;

        GRPO_HD std::int64_t begin() const { return each.row.begin; }
        // Where its gradient goes.
        GRPO_HD span row() const { return any ? span_of<V>(each.gradient, each.row.begin, each.row.end) : span{}; }
    };

    // Where a token stands among the sequences.
    struct sequence_of_token {
        std::int64_t row = -1;
        std::int64_t tokens = 0;  // that count
    };
    template <class Team>
    GRPO_HD row_use find(Team& team, sequence_of_token& at, std::int64_t position) const {
        std::int64_t row = at.row;
        const row_use use = from.uses(position, row);
        if (row != at.row) at = {row, row < from.uses.layout.rows() ? count_active(team, from.uses.layout, row) : 0};
        return use;
    }

    template <class V, source Source, class Team>
    GRPO_HD void walk(Team& team, std::int64_t first, std::int64_t last) const {
        unfinished<V, Source> before;
        sequence_of_token sequence;
        for (std::int64_t i = first; i < last; ++i) {
            const row_use use = find(team, sequence, from.position(i));
            if (use == row_use::active) one<V, Source>(team, i, sequence, before);
            if (use == row_use::masked) skip<V>(team, i);
        }
        finish<V, Source>(team, before);
        finish_stores<V>();
    }

    template <class V, source Source, class Team>
    GRPO_HD void one(Team& team, std::int64_t i, const sequence_of_token& sequence, unfinished<V, Source>& before) const {
        const row_type here = from.row(i);
        const ref_type<V> ref = from.template beside<WithKl, V>(team, i);
        // Before the lanes meet in measure_beside(), and so before any of them writes over it.
        const auto target = from.target_of(i);
        const double y = from.template read<V>(here, target);
        const softmax_row s = measure_beside<V, Source>(team, here, ref, before);
        gradient_type<V, Source> each(here, gradient, ref);
        each.past_cache = Source == source::scratch && std::is_same_v<Out, compute> && from.large();
        each.take(evaluated(team, i, sequence, target.at, y, s, each), target.at);
        clear<V>(team, gradient, here.end, here.begin + from.in.vocabulary);
        before.each = each;
        before.any = true;
    }

    // What a token's softmax means to the loss, and to its gradient.
    template <class Team, class Each>
    GRPO_HD gradient_scales evaluated(Team& team, std::int64_t i, const sequence_of_token& sequence, std::int64_t target,
                                      double y, const softmax_row& s, const Each& each) const {
        const std::int64_t t = from.position(i);
        const token_values<C> value{static_cast<C>(s.log_probability(y * each.e.factor())), static_cast<C>(s.entropy),
                                    static_cast<C>(s.divergence)};
        if (team.leader()) {
            token.logp[t] = value.logp;
            if (WithEntropy) token.entropy[t] = value.entropy;
            if (WithKl) token.kl[t] = value.kl;
        }
        return each.scales(s, slopes(team, value, token, sequence.row, sequence.tokens, t), y, target);
    }

    // Pass 1 of a row in a team of a device, and what follows from it.
    struct found_row {
        gradient_scales scales;
        bool overflown;
    };
    template <class V, bool Raises, class Team, class Walk, class Each>
    GRPO_HD found_row conclude(Team& team, Walk& walk, std::int64_t i, const sequence_of_token& sequence, double y,
                               const Each& each) const {
        const auto mine = with_step<wants, Raises, V>(each.row, each.ref, y, [&](const span& where, const auto& step) {
            return walk.rows.template measure<sums>(where, step);
        });
        return team.template conclude<sums>(mine, [&](const typename sums::total& s) {
            return found_row{evaluated(team, i, sequence, walk.target.at, y, softmax_row::of<sums, V>(s), each),
                             !Raises && overflown(s.sum[sums::p])};
        });
    }

    // Pass 1 of a row together with pass 2 of the row before.
    template <class V, source Source, class Team>
    GRPO_HD softmax_row measure_beside(Team& team, const row_type& here, const ref_type<V>& ref,
                                       unfinished<V, Source>& before) const {
        softmax_exponent<V> e(here.reading.factor);
        const span row = span_of<V>(here.data, here.begin, here.end);
        if constexpr (Source == source::scratch) {
            // Column 0 lies so far into the worker's row that its whole lines are those of the gradient's first row.
            if (!before.any) {
                const std::int64_t head = span_of<V>(gradient, here.begin, here.end).head;
                before.place = scratch + team.worker * scratch_stride +
                               (scalar_traits<V>::lanes - head) % scalar_traits<V>::lanes;
            }
            const keep_at<V, compute> place{before.place, here.begin};
            if (!before.any) {
                using keep = keep_at<V, compute>;
                const softmax_step<wants, V, row_type, ref_type<V>, keep> step{here, ref, place, e};
                return softmax_row::of<sums>(stream<sums, V>(team, row, step));
            }
            using keep = keep_in_turn<V, compute, gradient_type<V, Source>>;
            const keep in_turn{place, before.each, here.begin - before.begin()};
            const softmax_step<wants, V, row_type, ref_type<V>, keep> step{here, ref, in_turn, e};
            // Whole lines are those of the gradient that is being written.
            const std::int64_t head = before.row().head;
            return softmax_row::of<sums>(stream<sums, V>(team, {here.begin, here.end, head}, step));
        } else {
            using keep = std::conditional_t<Source == source::place, keep_at<V, Out>, keep_nothing>;
            keep kept{};
            if constexpr (Source == source::place) kept = {gradient, 0};
            const softmax_step<wants, V, row_type, ref_type<V>, keep> step{here, ref, kept, e};
            return softmax_row::of<sums>(stream<sums, V>(team, row, step, before.row(), before.each));
        }
    }

    template <class V, source Source, class Team>
    GRPO_HD void finish(Team& team, const unfinished<V, Source>& before) const {
        if (!before.any) return;
        const auto& each = before.each;
        if constexpr (Source == source::scratch) {
            sweep<V>(team, before.row(), from_scratch<V, gradient_type<V, Source>>{each, before.place});
        } else {
            write_gradient<V>(team, each);
        }
    }

    // Pass 2 of a row whose p lie in a worker's memory.
    template <class V, class Gradient>
    struct from_scratch {
        static constexpr int segments = Gradient::segments;
        Gradient each;
        const compute* place;

        template <class Cursor>
        GRPO_HD void operator()(const Cursor& at) const {
            each.put(at, at.at(at.i - each.row.begin).load(place));
        }
    };

    // A token that does not count: not read.
    template <class V, class Team>
    GRPO_HD void skip(Team& team, std::int64_t i) const {
        const std::int64_t begin = from.in.layout().begin(i);
        clear<V>(team, gradient, begin, begin + from.in.vocabulary, from.large());
        const std::int64_t t = from.position(i);
        if (team.leader()) token.logp[t] = C(0);
        if (team.leader() && WithEntropy) token.entropy[t] = C(0);
        if (team.leader() && WithKl) token.kl[t] = C(0);
    }
};

}  // namespace grpo::inline v0::detail
