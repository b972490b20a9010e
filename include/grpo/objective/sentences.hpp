// What a compiler says to a loss that cannot be evaluated: one sentence for each mistake, before any of its templates.
#pragma once

#include <concepts>
#include <type_traits>

#include <grpo/objective/batch.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0::detail {

template <class Term, class Batch, bool Diagnosed>
consteval void check_inputs() {
    constexpr unsigned missing = Term::needs & ~Batch::has;
    static_assert(!(missing & input::logp::bit), "grpo: this term needs logp: add grpo::logp(...) to the batch");
    static_assert(!(missing & input::logp_old::bit),
                  "grpo: this term needs logp_old: add grpo::logp_old(...) to the batch, or use on_policy, whose ratio is 1");
    static_assert(!(missing & input::logp_ref::bit),
                  "grpo: this term needs logp_ref (a KL term does): add grpo::logp_ref(...) to the batch, or drop the term");
    static_assert(!(missing & input::logp_rollout::bit),
                  "grpo: this term needs logp_rollout: add grpo::logp_rollout(...) to the batch");
    static_assert(!(missing & input::advantage::bit),
                  "grpo: this term needs advantage: add grpo::advantage(by_sequence(...)) or grpo::advantage(by_token(...))");
    static_assert(!(missing & input::entropy::bit),
                  "grpo: this term needs entropy: add grpo::entropy(...) to the batch, or drop the entropy bonus");
    static_assert(!(missing & input::full_kl::bit),
                  "grpo: this term needs full_kl: evaluate it from logits with a reference (evaluate_logits), or add "
                  "grpo::full_kl(...) to the batch");
    static_assert(!(missing & input::weight::bit),
                  "grpo: this term needs weight: add grpo::weight(...) (see correction.hpp), or drop rollout_weighted");
    static_assert(!(missing & input::keep::bit),
                  "grpo: this term needs keep: add grpo::keep(...) (see selection.hpp), or drop selected");
    static_assert(!(missing & input::label::bit), "grpo: this term needs label: add grpo::label(by_sequence(...)) to the batch");
    static_assert(!(missing & (input::value::bit | input::value_old::bit | input::returns::bit)),
                  "grpo: this term needs values, values_old and returns (a critic loss does): add what the batch lacks of them");
    using record = typename record_of<Batch>::template type<float>;
    input_sentences<record>::template check<missing>();
    static_assert(!Diagnosed || std::same_as<record, token<float>>,
                  "grpo: diagnosed() looks at tokens: evaluate a loss on pairs or steps without it");
    static_assert(missing == 0, "grpo: this term needs an input that the batch lacks: see the term's `needs`");
}

template <class Term, class S, class Record>
concept gives_scalar = requires(const Term& t, const Record& x) {
    { t(x) } -> std::convertible_to<S>;
};
template <class Term, class S>
concept gives_statistics = requires(const Term& t, const token<S>& x, S* out) { t.write_statistics(x, out); } ||
                           requires(const Term& t, const token<S>& x) { requires Term::statistics == 1; t.statistic(x); };

template <class Term, class Batch>
consteval void check_term() {
    using plain = typename Batch::compute;
    using slopes = dual<plain, 1>;
    using records = record_of<Batch>;
    static_assert(gives_scalar<Term, plain, typename records::template type<plain>> &&
                      gives_scalar<Term, slopes, typename records::template type<slopes>>,
                  "grpo: a term's operator() is a template on the scalar S: it takes const token<S>& and returns S");
    if constexpr (statistics_of<Term>() > 0) {
        static_assert(gives_statistics<Term, plain> && gives_statistics<Term, slopes>,
                      "grpo: a term with statistics gives them by statistic(token) or write_statistics(token, out)");
    }
}

template <class T>
inline constexpr bool is_gradient = false;
template <class Tag, class T, bool Add>
inline constexpr bool is_gradient<gradient<Tag, T, Add>> = true;

template <class Batch, class Output>
consteval void check_output() {
    static_assert(is_gradient<Output>, "grpo: outputs are named: pass grpo::d_logp(g), grpo::d_entropy(g) or grpo::d_values(g)");
    if constexpr (is_gradient<Output>) {
        static_assert(Output::tag::differentiable,
                      "grpo: this output is the derivative of an input that is a constant of every loss");
        static_assert((Batch::has & Output::tag::bit) != 0,
                      "grpo: a gradient was asked for an input that the batch does not have");
        static_assert(!std::is_const_v<typename Output::storage>,
                      "grpo: a gradient needs memory that can be written, and this container is const");
    }
}

}  // namespace grpo::inline v0::detail
