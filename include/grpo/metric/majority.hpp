// maj@k (cons@k): how often the answer that most of k samples give is correct, exactly, over all C(n, k) subsets. They are
// counted, not listed: the subsets in which an answer wins with m votes are a coefficient of a product of polynomials.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/metric/sampling.hpp>

namespace grpo::inline v0 {

// Which of the answers with equally many votes wins.
enum class majority_tie {
    first,  // the one whose first vote comes first in the order of the samples (NeMo RL, verl)
    split,  // each with the same chance
};

// One cell of the memory that maj_at_k works in.
struct majority_cell {
    double coefficient = 0;
    double size = 0;         // votes of the answer that was first given here; 0 if it was given before
    double later = 0;        // those of them that come after the sample under consideration
    std::int64_t place = 0;  // of the sample
    std::int64_t head = 0;   // the cell where its answer was given first
};

// How many cells maj_at_k needs.
template <shape Groups>
std::int64_t majority_workspace(const Groups& groups, std::int64_t k) {
    std::int64_t n = 0;
    for (std::int64_t g = 0; g < groups.rows(); ++g) {
        const std::int64_t size = groups.end(g) - groups.begin(g);
        n = size > n ? size : n;
    }
    return n > (k + 1) * (k + 1) ? n : (k + 1) * (k + 1);
}

namespace detail {

inline double choose(double n, std::int64_t k) {
    double c = 1;
    for (std::int64_t x = 0; x < k; ++x) c = c * (n - static_cast<double>(x)) / static_cast<double>(x + 1);
    return c;
}

// Votes of one group. `cells` holds the samples in order; cells[..].coefficient a polynomial in z (the number of votes) of
// `width` coefficients for each number of ties.
struct majority_count {
    majority_cell* cells;
    std::int64_t n;
    std::int64_t k;

    bool is_answer(std::int64_t a) const { return cells[a].head == a; }

    // Multiplies by Σ_{x<m} C(size, x) z^x for the answer's losing votes and C(tied, m) z^m for m votes; the latter count
    // as one more tie if `counted`, up to `ties`.
    void multiply(const majority_cell& b, std::int64_t m, double tied, std::int64_t width, std::int64_t ties,
                  bool counted) const {
        for (std::int64_t t = ties; t >= 0; --t) {
            for (std::int64_t d = width - 1; d >= 0; --d) {
                double sum = 0;
                double c = 1;
                for (std::int64_t x = 0; x < m && x <= d; ++x) {
                    sum += c * cells[t * width + d - x].coefficient;
                    c = c * (b.size - static_cast<double>(x)) / static_cast<double>(x + 1);
                }
                const std::int64_t from = counted ? t - 1 : t;
                if (d >= m && from >= 0) sum += tied * cells[from * width + d - m].coefficient;
                cells[t * width + d].coefficient = sum;
            }
        }
    }

    void start(std::int64_t cells_used) const {
        for (std::int64_t d = 0; d < cells_used; ++d) cells[d].coefficient = d == 0 ? 1.0 : 0.0;
    }

    // Subsets in which the first vote of the winner, with m votes, is sample p: `later` votes of every answer come after p.
    double won_first(std::int64_t p, std::int64_t m) const {
        const std::int64_t a = cells[p].head;
        const std::int64_t width = k - m + 1;
        start(width);
        for (std::int64_t b = 0; b < n; ++b) {
            if (b != a && is_answer(b)) multiply(cells[b], m, choose(cells[b].later, m), width, 0, false);
        }
        return choose(cells[a].later, m - 1) * cells[width - 1].coefficient;
    }

    // Subsets in which the answer a wins with m votes, those with t ties weighing 1 / (t + 1).
    double won_share(std::int64_t a, std::int64_t m) const {
        const std::int64_t width = k - m + 1;
        const std::int64_t ties = (k - m) / m;
        start(width * (ties + 1));
        for (std::int64_t b = 0; b < n; ++b) {
            if (b != a && is_answer(b)) multiply(cells[b], m, choose(cells[b].size, m), width, ties, true);
        }
        double sum = 0;
        for (std::int64_t t = 0; t <= ties; ++t) {
            sum += cells[t * width + width - 1].coefficient / static_cast<double>(t + 1);
        }
        return choose(cells[a].size, m) * sum;
    }

    template <class Right>
    double count(majority_tie tie, Right&& right) const {
        double sum = 0;
        for (std::int64_t p = 0; p < n; ++p) {
            cells[cells[p].head].later -= 1;
            const bool wanted = tie == majority_tie::first || is_answer(p);
            if (!wanted || !right(cells[cells[p].head].place)) continue;
            const double most = tie == majority_tie::first ? cells[cells[p].head].later + 1 : cells[p].size;
            for (std::int64_t m = 1; m <= k && static_cast<double>(m) <= most; ++m) {
                sum += tie == majority_tie::first ? won_first(p, m) : won_share(p, m);
            }
        }
        return sum;
    }
};

// The valid samples of a group, each with the cell where its answer was given first.
template <class Groups, class A>
void fill_cells(const Groups& groups, std::int64_t g, view<const A> answer, majority_cell* cells) {
    std::int64_t n = 0;
    for (std::int64_t i = groups.begin(g); i < groups.end(g); ++i) {
        if (!groups.active(cursor<double>{i})) continue;
        std::int64_t head = 0;
        while (head < n && !(answer[cells[head].place] == answer[i])) ++head;
        cells[n].place = i;
        cells[n].head = head;
        cells[n].size = cells[n].later = 0;
        cells[head].size += 1;
        cells[head].later += 1;
        ++n;
    }
}

}  // namespace detail

// out[g] = share of the k-subsets of group g whose majority answer is correct. Equal `answer` values are equal answers
// (integers, say ids or hashes); whether an answer is correct is looked up at its first occurrence in the group.
// Time O(n² k²) per group; C(n, k) must fit a double (any k up to n = 1000). Workspace: majority_workspace(groups, k) cells.
template <shape Groups, class Answers, class Correct, class Out>
metric_mean maj_at_k(const Groups& groups, const Answers& answer, const Correct& correct, std::int64_t k, majority_tie tie,
                     view<majority_cell> workspace, Out&& out) {
    constexpr const char* function = "maj_at_k";
    const auto answers = detail::const_view(answer);
    const auto right = detail::const_view(correct);
    const view to(out);
    detail::require(detail::first_of(
        detail::validate_metric(serial{}, function, groups, right, to, k),
        detail::wrong_size(function, "answer", answers.size(), groups.extent(), "samples"),
        detail::null_pointer(function, "answer", answers.data(), answers.size()),
        detail::below(function, "workspace.size()", static_cast<double>(workspace.size()),
                      static_cast<double>(majority_workspace(groups, k))),
        detail::null_pointer(function, "workspace", workspace.data(), workspace.size())));
    for (std::int64_t g = 0; g < groups.rows(); ++g) {
        const std::int64_t n = groups.count_active(g);
        if (n < k || detail::choose(static_cast<double>(n), k) < 1e300) continue;
        detail::require(detail::complain(function, "groups", "have a group of %lld samples, too many subsets of %lld",
                                         static_cast<long long>(n), static_cast<long long>(k)));
    }
    return detail::over_groups(serial{}, groups, k, to, [&](const auto&, std::int64_t g, std::int64_t n) {
        detail::fill_cells(groups, g, answers, workspace.data());
        const detail::majority_count votes{workspace.data(), n, k};
        const double won = votes.count(tie, [&](std::int64_t i) { return static_cast<double>(right[i]) != 0; });
        return won / detail::choose(static_cast<double>(n), k);
    });
}

}  // namespace grpo::inline v0
