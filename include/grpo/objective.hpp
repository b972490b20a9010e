// Objectives: a loss is term × aggregation, evaluated over a batch by an executor.
//
//   const grpo::objective loss{grpo::clipped{.low = 0.2, .high = 0.28} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()};
//   const double n = loss.over.denominator(grpo::count(shape));
//   const auto r = grpo::evaluate(exec, loss, batch, n, grpo::d_logp(gradient));
//   r.loss(n); r.nonfinite; r.first_nonfinite;
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/objective/aggregation.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/objective/diagnostics.hpp>
#include <grpo/objective/rows.hpp>
#include <grpo/objective/sentences.hpp>
#include <grpo/shape.hpp>
#include <grpo/term.hpp>

namespace grpo::inline v0 {

// How a loss is made: the token loss, how tokens are weighed, and what an active non-finite token does.
template <term Term, bool Diagnosed = false>
struct objective {
    Term term;
    aggregation over;
    nonfinite policy = nonfinite::report;

    // The same loss with loss_result::metrics filled in the same pass.
    objective<Term, true> diagnosed() const { return {term, over, policy}; }
};
template <term Term>
objective(const Term&, aggregation) -> objective<Term>;
template <term Term>
objective(const Term&, aggregation, nonfinite) -> objective<Term>;

// Sums of a loss. Results of parts of a batch belong together through accumulate(), which continues the fold row by row:
// any split into consecutive micro-batches gives the same bits.
struct loss_result {
    double sum = 0;                     // Σ_i c_i Σ_t m x
    double weight = 0;                  // Σ_i w_i
    totals count;                       // rows, rows with active tokens, active tokens
    std::int64_t nonfinite = 0;         // active tokens with a NaN or infinite input
    std::int64_t first_nonfinite = -1;  // flat index of the first of them (in the part where it occurred), or -1
    std::int64_t missing_rollout = 0;   // active tokens without a rollout log-probability (NaN): weight 1 there (R1.17)
    diagnostics metrics;                // filled by objective::diagnosed()

    // The loss for a denominator that was given, or for the weight of what was seen; 0 where that is 0 (R1.18).
    GRPO_HD double loss(double denominator) const { return denominator > 0 ? sum / denominator : 0.0; }
    GRPO_HD double loss() const { return loss(weight); }

    // One more row: the rows' order is the order of the additions.
    template <class Body>
    GRPO_HD void add(const typename Body::result& row) {
        if (row.length > 0) {
            sum += row.coefficient * row.total.sum[0];
            if constexpr (Body::maxima > 0) {
                detail::add_row(metrics, row.total.sum + Body::at_metrics, row.total.maximum, row.coefficient,
                                static_cast<double>(row.length));
            }
        }
        weight += row.weight;
        count.sequences += 1;
        count.nonempty += row.length > 0 ? 1 : 0;
        count.tokens += row.length;
        nonfinite += static_cast<std::int64_t>(row.total.sum[1]);
        missing_rollout += static_cast<std::int64_t>(row.total.sum[2]);
        if (first_nonfinite < 0 && row.total.first != detail::no_index) first_nonfinite = row.total.first;
    }
    // The same for the rows that follow. (Sums of sums: not the bits of adding row by row.)
    GRPO_HD void merge(const loss_result& later) {
        sum += later.sum;
        weight += later.weight;
        count.sequences += later.count.sequences;
        count.nonempty += later.count.nonempty;
        count.tokens += later.count.tokens;
        nonfinite += later.nonfinite;
        missing_rollout += later.missing_rollout;
        if (first_nonfinite < 0) first_nonfinite = later.first_nonfinite;
        detail::merge(metrics, later.metrics);
    }
};

namespace detail {

template <class Output>
problem validate_output(const Output& o, std::int64_t extent, const char* function) {
    if (o.data.size() != extent) {
        return complain(function, Output::tag::name, "gradient has %lld entries, but the batch has %lld positions",
                        static_cast<long long>(o.data.size()), static_cast<long long>(extent));
    }
    return null_pointer(function, Output::tag::name, o.data.data(), o.data.size());
}

// What a term, as it was reduced, asks of a batch and of the outputs.
template <class Term, class Batch, class... Outputs>
problem check_values(const aggregation& over, const Batch& b, const char* function, const Outputs&... outputs) {
    return first_of(b.validate(function, Term::needs), over.validate(function, b.layout.rows()),
                    validate_output(outputs, b.layout.extent(), function)...);
}
inline problem check_denominator(const char* function, double denominator) {
    if (denominator >= 0 && !is_nonfinite(denominator)) return {};
    return complain(function, "denominator", "is %g, but must be finite and at least %g", denominator, 0.0);
}

// The body that evaluates a term over a batch.
template <bool Diagnosed, class Term, class Batch, class... Outputs>
auto rows_of(const Term& term, const aggregation& over, nonfinite policy, const Batch& b, double denominator,
             const Outputs&... outputs) {
    using body = loss_rows<Term, Batch, output_set<Outputs...>, Diagnosed>;
    const double scale = denominator > 0 ? 1.0 / denominator : 0.0;
    return body{term, b, output_set<Outputs...>(outputs...), over, scale, policy};
}

template <class Body>
struct add_loss {
    GRPO_HD void operator()(loss_result& total, const typename Body::result& row) const { total.template add<Body>(row); }
    GRPO_HD static void merge(loss_result& total, const loss_result& later) { total.merge(later); }
};

// "logp gradient", as errors call an output.
template <class Tag>
struct gradient_name {
    char text[64] = {};
    constexpr gradient_name() {
        int n = 0;
        for (const char* from : {Tag::name, " gradient"}) {
            while (*from != 0 && n < 63) text[n++] = *from++;
        }
    }
};
template <class Tag>
inline constexpr gradient_name<Tag> name_of_gradient{};

// Pointers that an executor of another memory cannot follow.
template <class Exec, class Batch, class... Outputs>
problem check_batch_reach(const Exec& exec, const char* function, const Batch& b, unsigned used, const Outputs&... outputs) {
    problem p;
    if constexpr (!on_host<Exec>) {
        const auto reach = [&](const char* argument, const auto& data) {
            if (!p) p = check_reach(exec, function, named(argument, data));
        };
        p = check_shape(exec, function, b.layout);
        b.each_input(used, reach);
        (reach(name_of_gradient<typename Outputs::tag>.text, outputs.data), ...);
    }
    return p;
}

// The checks, then the rows. Diagnostics look at every observable input that the batch has and that is not null. Onto: a
// loss_result that is continued; or, for an executor of another memory, a pointer that is told where the result will be.
template <bool Diagnosed, class Term, class Exec, class Batch, class Onto, class... Outputs>
problem run(Onto& onto, Exec&& exec, const Term& term, const aggregation& over, nonfinite policy, const Batch& b,
            double denominator, const char* function, const Outputs&... outputs) {
    if constexpr (!on_host<Exec>) {
        if (const problem p = check_shape(exec, function, b.layout)) return p;  // before anything asks for its extent
    }
    if (const problem p = check_values<Term>(over, b, function, outputs...)) return p;
    const auto rows = rows_of<Diagnosed>(term, over, policy, b, denominator, outputs...);
    using body = std::remove_const_t<decltype(rows)>;
    if (const problem p = check_batch_reach(exec, function, b, body::seen, outputs...)) return p;
    if constexpr (on_host<Exec>) exec.fold(b.layout.rows(), onto, rows, add_loss<body>{});
    else onto = exec.template fold<loss_result>(b.layout.rows(), rows, add_loss<body>{});
    return {};
}

// Where an executor's loss goes: see run().
template <class Exec>
using loss_target = std::conditional_t<on_host<Exec>, loss_result, const loss_result*>;

}  // namespace detail

// Continues `total` with the rows of this batch, in order. Everything else as evaluate(); nothing is thrown and nothing
// written if the returned problem is one.
template <class Exec, class Term, bool Diagnosed, class Batch, class... Outputs>
problem try_accumulate(detail::loss_target<Exec>& total, Exec&& exec, const objective<Term, Diagnosed>& loss, const Batch& b,
                       double denominator, const Outputs&... outputs) {
    constexpr const char* function = "evaluate";
    detail::check_inputs<Term, Batch, Diagnosed>();
    detail::check_term<Term, Batch>();
    (detail::check_output<Batch, Outputs>(), ...);
    if (const problem p = detail::check_denominator(function, denominator)) return p;
    if (const problem p = detail::validate_term(loss.term, function)) return p;
    return detail::reduced(loss.term, [&](const auto& term) {
        return detail::run<Diagnosed>(total, exec, term, loss.over, loss.policy, b, denominator, function, outputs...);
    });
}

// Evaluates a loss and its gradient over a batch: one pass over memory (three if the term couples the tokens of a
// sequence), no allocation.
//
//   exec         grpo::serial{}, threads, simd, ...: who walks the rows
//   batch        shape and inputs; inputs the term does not need are not read, and neither are those of a term whose
//                scale is 0
//   denominator  what the loss and the gradient are divided by, e.g. loss.over.denominator(totals of the global batch)
//   outputs      d_logp(g), d_entropy(g), d_values(g): where derivatives go; none for the value alone. d_logp may alias
//                a per-token input unless the term has statistics.
//
// Errors: grpo::error for sizes that do not fit, null pointers, hyper-parameters out of range; nothing is written then.
template <class Exec, class Term, bool Diagnosed, class Batch, class... Outputs>
void accumulate(detail::loss_target<Exec>& total, Exec&& exec, const objective<Term, Diagnosed>& loss, const Batch& b,
                double denominator, const Outputs&... outputs) {
    detail::require(try_accumulate(total, exec, loss, b, denominator, outputs...));
}

template <class Exec, class Term, bool Diagnosed, class Batch, class... Outputs>
[[nodiscard]] detail::loss_target<Exec> evaluate(Exec&& exec, const objective<Term, Diagnosed>& loss, const Batch& b,
                                   double denominator, const Outputs&... outputs) {
    detail::loss_target<Exec> total{};
    accumulate(total, exec, loss, b, denominator, outputs...);
    return total;
}

}  // namespace grpo::inline v0
