// Passes over the tokens of a batch that find a place among them and mark those on one side of it, by any executor: counts, then
// a digit of the place per pass, then the marks. What earlier passes have found goes from total to total, so that nobody waits
// for it on the host where totals lie in a device's memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/selection/goals.hpp>
#include <grpo/selection/order.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0::detail {

// The tokens of a batch. Of: what is ranked of them,
//   needs                               inputs
//   centred                             whether that takes the means of advantage and logp
//   value(token, counts, x) -> bool     whether the token takes part, and its x
template <class Batch, class Of>
struct ranked_tokens {
    using V = typename Batch::compute;
    Batch data;
    Of of;

    // f(state, i, token, finite) for the active tokens of a row; skipped(i) for the others.
    template <class Monoid, class Team, class F, class Skipped>
    GRPO_HD auto fold(Team& team, std::int64_t row, F&& f, Skipped&& skipped) const {
        token<V> of_row;
        V probe_of_row = 0;
        data.template read_row<Of::needs>(row, of_row, probe_of_row);
        return team.template fold<Monoid, double>(data.layout.begin(row), data.layout.end(row), [&](auto& state, cursor<double> at) {
            if (!data.layout.active(at)) return skipped(at.i);
            token<V> t = of_row;
            V probe = probe_of_row;
            data.template read_token<Of::needs>(cursor<V>{at.i}, t, probe);
            f(state, at.i, t, !is_nonfinite(probe));
        });
    }
    template <class Monoid, class Team, class F>
    GRPO_HD auto fold(Team& team, std::int64_t row, F&& f) const {
        return fold<Monoid>(team, row, f, [](std::int64_t) {});
    }
};

template <class Tokens>
struct counted_rows {
    Tokens tokens;

    GRPO_HD std::int64_t entries() const { return tokens.data.layout.extent(); }

    template <class Team>
    GRPO_HD token_counts operator()(Team& team, std::int64_t row) const {
        const auto total = tokens.template fold<tally<4>>(team, row, [&](auto& state, std::int64_t i, const auto& t, bool finite) {
            state.sum[0] += finite ? 1 : 0;
            state.sum[1] += finite ? 0 : 1;
            if (!finite && i < state.first) state.first = i;
            if constexpr (decltype(tokens.of)::centred) {
                state.sum[2] += finite ? static_cast<double>(t.advantage) : 0.0;
                state.sum[3] += finite ? static_cast<double>(t.logp) : 0.0;
            }
        });
        return {static_cast<std::int64_t>(total.sum[0]), static_cast<std::int64_t>(total.sum[1]),
                total.first == no_index ? -1 : total.first, total.sum[2], total.sum[3]};
    }
};

// A pass over one row, and over all of them. The first row tells what earlier passes have found.
template <int Bins, bool Sums>
struct search_row {
    bool tells;
    typename digit_bins<Bins, Sums>::template state<double> bins;
    search_known known;
};
template <int Bins, bool Sums>
struct search_total {
    bool tells = false;
    digit_totals<Bins, Sums> bins;
    search_known known;
};
struct add_searched {
    template <class Total, class Row>
    GRPO_HD void operator()(Total& all, const Row& row) const {
        merge(all, row);
    }
    template <class Total, class Row>
    GRPO_HD static void merge(Total& all, const Row& later) {
        if (later.tells) all.known = later.known;
        all.tells = all.tells || later.tells;
        all.bins.add(later.bins);
    }
};
struct add_beyond {
    GRPO_HD void operator()(search_known& all, const search_known& row) const { merge(all, row); }
    GRPO_HD static void merge(search_known& all, const search_known& later) {
        if (later.search.depth > 0) {
            all.counts = later.counts;
            all.search = later.search;
        }
        extrema::merge(all.beyond, later.beyond);
    }
};

// One digit further.
template <class Goal, class Digits, class Totals>
GRPO_HD void advance(const Goal& goal, const Digits& digits, search_known& known, const Totals& bins) {
    search_state& s = known.search;
    if (s.depth == 0) {
        std::int64_t candidates = 0;
        for (int k = 0; k < Digits::bins; ++k) candidates += bins.count[k];
        s.rank = goal.rank(known.counts, candidates);
    }
    const int bin = goal.bin(s, bins, Digits::bins - 1);
    digits.set_digit(s.found, s.depth, bin);
    s.here = bins.count[bin];
    ++s.depth;
}
// What a pass starts from: itself, or the total of the pass before, which lies in a device's memory.
template <class Goal, class Digits>
GRPO_HD search_known known_from(const Goal&, const Digits&, const search_known& known) {
    return known;
}
template <class Goal, class Digits>
GRPO_HD search_known known_from(const Goal&, const Digits&, const search_known* known) {
    return *known;
}
template <class Goal, class Digits>
GRPO_HD search_known known_from(const Goal&, const Digits&, const token_counts* counts) {
    return {*counts, {}, {}};
}
template <class Goal, class Digits>
GRPO_HD search_known known_from(const Goal& goal, const Digits& digits, const search_total<Digits::bins, Goal::sums>* total) {
    search_known known = total->known;
    advance(goal, digits, known, total->bins);
    return known;
}

// What every pass but the first takes. ranks(): whether a token takes part, and its x.
template <class Tokens, class Goal, class Digits, class Known>
struct selection_pass {
    Tokens tokens;
    Goal goal;
    Digits digits;
    Known from;

    GRPO_HD std::int64_t entries() const { return tokens.data.layout.extent(); }
    GRPO_HD search_known known() const { return known_from(goal, digits, from); }
    template <class Token>
    GRPO_HD bool ranks(const Token& t, bool finite, const search_known& known, double& x) const {
        return finite && tokens.of.value(t, known.counts, x);
    }
};

// A pass of the search.
template <class Tokens, class Goal, class Digits, class Known>
struct searched_rows {
    selection_pass<Tokens, Goal, Digits, Known> pass;

    GRPO_HD std::int64_t entries() const { return pass.entries(); }

    template <class Team>
    GRPO_HD search_row<Digits::bins, Goal::sums> operator()(Team& team, std::int64_t row) const {
        using bins = digit_bins<Digits::bins, Goal::sums>;
        const Digits& digits = pass.digits;
        const search_known known = pass.known();
        const auto found = pass.tokens.template fold<bins>(team, row, [&](auto& state, std::int64_t i, const auto& t, bool finite) {
            double x = 0;
            if (!pass.ranks(t, finite, known, x)) return;
            const order_place place = pass.goal.place(digits, x, i);
            if (!digits.agree(place, known.search.found, known.search.depth)) return;
            bins::add(state, digits.digit(place, known.search.depth), x);
        });
        return {row == 0, found, known};
    }
};
// The values above the one that was found.
template <class Tokens, class Goal, class Digits, class Known>
struct rows_beyond {
    selection_pass<Tokens, Goal, Digits, Known> pass;

    GRPO_HD std::int64_t entries() const { return pass.entries(); }

    template <class Team>
    GRPO_HD search_known operator()(Team& team, std::int64_t row) const {
        search_known known = pass.known();
        known.beyond = pass.tokens.template fold<extrema>(team, row, [&](auto& state, std::int64_t, const auto& t, bool finite) {
            double x = 0;
            if (!pass.ranks(t, finite, known, x)) return;
            if (known.search.found.key < order_key(x)) extrema::add(state, x);
        });
        return known;
    }
};

// What a mask holds where a token is picked, takes part but is not picked, and takes no part; 0 where masked.
struct selection_marks {
    int picked;
    int other;
    int idle;
};
template <class Tokens, class Goal, class Digits, class Known, class M>
struct marked_rows {
    selection_pass<Tokens, Goal, Digits, Known> pass;
    selection_marks marks;
    M* out;

    GRPO_HD std::int64_t entries() const { return pass.entries(); }

    template <class Team>
    GRPO_HD selection_result operator()(Team& team, std::int64_t row) const {
        const Goal& goal = pass.goal;
        const search_known known = pass.known();
        const auto picked = pass.tokens.template fold<extrema>(
            team, row,
            [&](auto& state, std::int64_t i, const auto& t, bool finite) {
                double x = 0;
                const bool takes_part = pass.ranks(t, finite, known, x);
                const bool picks = takes_part && goal.picks(known, pass.digits, goal.place(pass.digits, x, i), x);
                out[i] = static_cast<M>(picks ? marks.picked : takes_part ? marks.other : marks.idle);
                if (picks) extrema::add(state, x);
            },
            [&](std::int64_t i) { out[i] = M(0); });
        // The first row tells of the whole batch.
        const token_counts n = row == 0 ? known.counts : token_counts{};
        return {n.tokens, static_cast<std::int64_t>(picked.n), n.nonfinite, n.first_nonfinite,
                picked.n > 0 ? goal.threshold(known, picked) : 0.0};
    }
};
template <class Goal>
struct add_selected {
    GRPO_HD void operator()(selection_result& all, const selection_result& row) const { merge(all, row); }
    GRPO_HD static void merge(selection_result& all, const selection_result& later) {
        if (later.selected > 0) {
            all.threshold = all.selected > 0 ? Goal::joined(all.threshold, later.threshold) : later.threshold;
        }
        all.tokens += later.tokens;
        all.selected += later.selected;
        all.nonfinite += later.nonfinite;
        if (all.first_nonfinite < 0) all.first_nonfinite = later.first_nonfinite;
    }
};

// All passes. On the host a search ends as soon as one value is left.
template <class Exec, class Tokens, class Goal, class M>
total_of<Exec, selection_result> select(const Exec& exec, const Tokens& tokens, const Goal& goal, const selection_marks& marks,
                                        M* out) {
    using digits_type = place_digits<on_host<Exec> ? 8 : 4>;
    using total = search_total<digits_type::bins, Goal::sums>;
    const std::int64_t rows = tokens.data.layout.rows();
    const digits_type digits(Goal::exact ? 0 : tokens.data.layout.extent());
    const auto& own = aside(exec);
    const auto search = [&]<class Known>(const Known& from) {
        return fold_rows<total>(own, rows, searched_rows<Tokens, Goal, digits_type, Known>{{tokens, goal, digits, from}}, add_searched{});
    };
    const auto mark = [&]<class Known>(const Known& from) {
        const marked_rows<Tokens, Goal, digits_type, Known, M> body{{tokens, goal, digits, from}, marks, out};
        return fold_rows<selection_result>(exec, rows, body, add_selected<Goal>{});
    };
    const auto finish = [&]<class Known>(const Known& from) {
        if constexpr (Goal::exact) {
            const rows_beyond<Tokens, Goal, digits_type, Known> body{{tokens, goal, digits, from}};
            return mark(fold_rows<search_known>(own, rows, body, add_beyond{}));
        } else {
            return mark(from);
        }
    };
    const auto counts = fold_rows<token_counts>(own, rows, counted_rows<Tokens>{tokens});
    if constexpr (on_host<Exec>) {
        search_known known{counts, {}, {}};
        search_state& s = known.search;
        while (s.depth < digits.count() && (Goal::exact || s.depth == 0 || s.here > 1)) advance(goal, digits, known, search(known).bins);
        return finish(known);
    } else {
        const total* found = search(counts);
        for (int depth = 1; depth < digits.count(); ++depth) found = search(found);
        return finish(found);
    }
}

}  // namespace grpo::inline v0::detail
