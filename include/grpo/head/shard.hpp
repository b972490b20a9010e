// A vocabulary in slices: each rank has some columns of the logits (tensor parallelism), and two reductions make of them what
// one rank with all columns would have.
//
//   grpo::token_logp_of_slices(comm, exec, slice, targets, {.first_token = ..., .slice_of = ...}, {.logp = ..., .lse = ...}, work);
//   ... the same loss on every rank ...
//   grpo::d_logits(exec, slice, targets, the same options, d_logp, d_entropy, gradient, {.lse = ..., .entropy = ...});
//
// The backward pass needs no reduction, because the global log-sum-exp was saved; every rank must have the same slopes.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/head/token_logp.hpp>

namespace grpo::inline v0 {

// Who reduces over the ranks: in place, the same result on every rank. The library opens no connection of its own.
template <class C>
concept communicator = requires(const C& comm, double* values, std::int64_t n) {
    { comm.rank() } -> std::convertible_to<int>;
    { comm.size() } -> std::convertible_to<int>;
    comm.all_reduce_max(values, n);
    comm.all_reduce_sum(values, n);
};

// One rank that has everything.
struct self_communicator {
    static int rank() { return 0; }
    static int size() { return 1; }
    static void all_reduce_max(double*, std::int64_t) {}
    static void all_reduce_sum(double*, std::int64_t) {}
};

// Doubles of the workspace that token_logp_of_slices() needs.
inline std::int64_t slices_workspace(std::int64_t rows) { return 5 * rows; }

namespace detail {

// One entry per row: what a slice knows of it, and what all slices do once it is reduced.
struct slice_sums {
    std::int64_t n;
    double* lse;      // then the greatest of all
    double* sum;      // Σ e^(z - greatest)
    double* centre;   // the same times (H - lse)
    double* squares;  // its square times Σ π²
    double* chosen;   // z of the target, where it is in the slice

    slice_sums(double* workspace, std::int64_t rows)
        : n(rows), lse(workspace), sum(lse + rows), centre(sum + rows), squares(centre + rows), chosen(squares + rows) {}

    // From lse, H, Σ π² and log π of the slice.
    template <class Comm>
    void reduce(const Comm& comm) const {
        for (std::int64_t i = 0; i < n; ++i) {
            centre[i] -= lse[i];
            chosen[i] = chosen[i] <= lowest ? 0.0 : chosen[i] + lse[i];
            sum[i] = lse[i];
        }
        comm.all_reduce_max(lse, n);
        for (std::int64_t i = 0; i < n; ++i) {
            sum[i] = lse[i] <= lowest ? 0.0 : std::exp(sum[i] - lse[i]);
            centre[i] *= sum[i];
            squares[i] *= sum[i] * sum[i];
        }
        comm.all_reduce_sum(sum, 4 * n);
    }
    softmax_row row(std::int64_t i) const {
        softmax_row s;
        if (sum[i] <= 0) return s;
        s.empty = false;
        s.lse = lse[i] + std::log(sum[i]);
        const double h = s.lse + centre[i] / sum[i];
        s.entropy = h < 0 ? 0.0 : h;
        s.sum_squares = squares[i] / (sum[i] * sum[i]);
        return s;
    }
};

}  // namespace detail

// token_logp() over slices of the vocabulary: `in` holds columns first_token, first_token + 1, ... of slice_of. All ranks
// call it with the same rows, mask and targets. Two reductions: a maximum of `rows` doubles, and a sum of 4 · rows.
// workspace: slices_workspace(rows) doubles. Errors: as token_logp(), on every rank alike where it is the caller's mistake.
template <communicator Comm, class Executor, class T, class Targets, class Out>
void token_logp_of_slices(const Comm& comm, const Executor& exec, const logits_view<T>& in, const Targets& targets,
                          const head_options& options, const softmax_outputs<Out>& out, view<double> workspace) {
    constexpr const char* function = "token_logp_of_slices";
    const view ids(targets);
    const std::int64_t n = in.rows;
    detail::require(detail::check_head(function, in, options));
    detail::require(detail::check_ids(function, ids, in, options));
    detail::require(detail::check_outputs(function, out, n));
    if (workspace.size() < slices_workspace(n)) {
        detail::require(detail::complain(function, "workspace", "has %lld doubles, but %lld are needed",
                                         static_cast<long long>(workspace.size()),
                                         static_cast<long long>(slices_workspace(n))));
    }
    using detail::softmax_wants;
    const detail::slice_sums sums(workspace.data(), n);
    detail::with_input(in, in, ids.data(), options, detail::used_by_mask{in.mask}, [&]<class Input>(const Input& from) {
        constexpr auto all = detail::softmax_wants::entropy | detail::softmax_wants::squares;
        exec.teams(n, detail::logp_rows<all, Input, double>{
                          from, {.logp = sums.chosen, .entropy = sums.centre, .sum_squares = sums.squares, .lse = sums.lse}});
    });
    sums.reduce(comm);
    const detail::softmax_arrays<Out> write{.logp = out.logp.data(), .entropy = out.entropy.data(),
                                            .sum_squares = out.sum_squares.data(), .lse = out.lse.data()};
    for (std::int64_t i = 0; i < n; ++i) {
        detail::softmax_row s;
        if (in.active(i)) s = sums.row(i);
        else s.lse = 0;
        write.write(i, in.active(i) ? s.log_probability(sums.chosen[i]) : 0.0, s, 0.0);
    }
}

}  // namespace grpo::inline v0
