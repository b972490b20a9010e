// What a preference term sees of one pair of responses, and how a caller names the arrays it comes from.
//
//   const auto b = batch(padded(1, pairs), chosen(w), rejected(l), ref_chosen(rw), ref_rejected(rl));
//   evaluate(exec, objective{dpo{.beta = 0.1}, aggregation::token_mean()}, b, n, d_chosen(gw), d_rejected(gl));
//
// A pair is to a preference term what a token is to a policy term: the same batch, engine, aggregation and composition,
// so aggregation::token_mean() is the mean over pairs. The arrays hold log-probabilities summed over each response
// (sequence_logp makes them, spread takes their derivatives back to the tokens), or a reward model's scores.
#pragma once

#include <cstdint>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// One pair. Fields that the term does not need hold their defaults.
template <class S>
struct pair {
    using constant = constant_t<S>;

    S chosen{};                  // log π_θ(y_w | x), summed over the tokens of the preferred response
    S rejected{};                // log π_θ(y_l | x)
    S gold{};                    // log π_θ of a third, reference response (TPO)
    constant ref_chosen{};       // log π_ref(y_w | x)
    constant ref_rejected{};     // log π_ref(y_l | x)
    constant chosen_length{};    // active tokens of y_w
    constant rejected_length{};  // active tokens of y_l
    constant gold_length{};      // active tokens of the third response
    constant margin{};           // what the chosen response should be ahead by
    constant pair_weight{};      // a constant weight, see wpo_weights
    constant preferred{};        // judged: 1 where the response under `chosen` won, 0 where the other one did

    GRPO_HD S chosen_ratio() const { return S(chosen - ref_chosen); }
    GRPO_HD S rejected_ratio() const { return S(rejected - ref_rejected); }
    // Δ: by how much the policy prefers y_w to y_l more than the reference does.
    GRPO_HD S delta() const { return S(S(chosen - ref_chosen) - S(rejected - ref_rejected)); }
};

// The inputs of a pair; their bits are apart from those of a token, so that a term of one record is never satisfied by a
// batch of the other.
namespace input {

struct pair_input {
    template <class S>
    using record = pair<S>;
};

struct chosen : pair_input {
    static constexpr unsigned bit = 1u << 20;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "chosen";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.chosen; }
};
struct rejected : pair_input {
    static constexpr unsigned bit = 1u << 21;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "rejected";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.rejected; }
};
struct gold : pair_input {
    static constexpr unsigned bit = 1u << 22;
    static constexpr bool differentiable = true;
    static constexpr const char* name = "gold";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.gold; }
};
struct ref_chosen : pair_input {
    static constexpr unsigned bit = 1u << 23;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "ref_chosen";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.ref_chosen; }
};
struct ref_rejected : pair_input {
    static constexpr unsigned bit = 1u << 24;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "ref_rejected";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.ref_rejected; }
};
struct chosen_length : pair_input {
    static constexpr unsigned bit = 1u << 25;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "chosen_length";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.chosen_length; }
};
struct rejected_length : pair_input {
    static constexpr unsigned bit = 1u << 26;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "rejected_length";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.rejected_length; }
};
struct gold_length : pair_input {
    static constexpr unsigned bit = 1u << 27;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "gold_length";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.gold_length; }
};
struct margin : pair_input {
    static constexpr unsigned bit = 1u << 28;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "margin";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.margin; }
};
struct pair_weight : pair_input {
    static constexpr unsigned bit = 1u << 29;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "pair_weight";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.pair_weight; }
};
struct preferred : pair_input {
    static constexpr unsigned bit = 1u << 30;
    static constexpr bool differentiable = false;
    static constexpr const char* name = "preferred";
    template <class R>
    GRPO_HD static auto& of(R& r) { return r.preferred; }
};

}  // namespace input

// clang-format off
template <class C> auto chosen(const C& x) { return field_of<input::chosen>(x); }
template <class C> auto rejected(const C& x) { return field_of<input::rejected>(x); }
template <class C> auto gold(const C& x) { return field_of<input::gold>(x); }
template <class C> auto ref_chosen(const C& x) { return field_of<input::ref_chosen>(x); }
template <class C> auto ref_rejected(const C& x) { return field_of<input::ref_rejected>(x); }
template <class C> auto chosen_length(const C& x) { return field_of<input::chosen_length>(x); }
template <class C> auto rejected_length(const C& x) { return field_of<input::rejected_length>(x); }
template <class C> auto gold_length(const C& x) { return field_of<input::gold_length>(x); }
template <class C> auto margin(const C& x) { return field_of<input::margin>(x); }
template <class C> auto pair_weight(const C& x) { return field_of<input::pair_weight>(x); }
template <class C> auto preferred(const C& x) { return field_of<input::preferred>(x); }

template <class C> auto d_chosen(C&& out) { return gradient_of<input::chosen>(out); }
template <class C> auto d_rejected(C&& out) { return gradient_of<input::rejected>(out); }
template <class C> auto d_gold(C&& out) { return gradient_of<input::gold>(out); }
// clang-format on

namespace detail {

template <>
struct input_sentences<pair<float>> {
    template <unsigned Missing>
    static consteval void check() {
        constexpr unsigned references = input::ref_chosen::bit | input::ref_rejected::bit;
        constexpr unsigned lengths = input::chosen_length::bit | input::rejected_length::bit | input::gold_length::bit;
        static_assert(!(Missing & input::chosen::bit), "grpo: this term needs chosen: add grpo::chosen(...) to the batch");
        static_assert(!(Missing & input::rejected::bit),
                      "grpo: this term needs rejected: add grpo::rejected(...) to the batch");
        static_assert(!(Missing & input::gold::bit),
                      "grpo: this term needs gold: add grpo::gold(...) to the batch, or use cpo, which needs no third response");
        static_assert(!(Missing & references), "grpo: this term needs ref_chosen and ref_rejected: add them to the batch, "
                                               "or use contrastive, simpo or cpo, which need no reference");
        static_assert(!(Missing & lengths), "grpo: this term is per token and needs lengths: add grpo::chosen_length(...), "
                                            "grpo::rejected_length(...) or grpo::gold_length(...) to the batch");
        static_assert(!(Missing & input::margin::bit),
                      "grpo: this term needs margin: add grpo::margin(...) to the batch (aot: see aot_match)");
        static_assert(!(Missing & input::pair_weight::bit),
                      "grpo: this term needs pair_weight: add grpo::pair_weight(...) to the batch (see wpo_weights)");
        static_assert(!(Missing & input::preferred::bit),
                      "grpo: this term needs preferred: add grpo::preferred(...) to the batch, or drop judged");
    }
};

inline constexpr unsigned responses = input::chosen::bit | input::rejected::bit;
inline constexpr unsigned both_policies = responses | input::ref_chosen::bit | input::ref_rejected::bit;

// ε of label smoothing: in [0, limit).
inline problem validate_smoothing(const char* function, const char* argument, double got, double limit) {
    if (got >= 0 && got < limit) return {};
    return complain(function, argument, "is %g, but must be at least 0 and below %g", got, limit);
}

// -(1 - ε) log σ(z) - ε log σ(-z).
template <class S>
GRPO_HD S smoothed_logistic(const S& z, double label_smoothing) {
    const S won = math::log_sigmoid(z);
    const S lost = math::log_sigmoid(S(-z));
    return S(constant<S>(label_smoothing - 1) * won - constant<S>(label_smoothing) * lost);
}

// The pair with sums divided by lengths; a length below 1 counts as 1.
template <class S>
GRPO_HD pair<S> averaged(const pair<S>& t) {
    using C = constant_t<S>;
    const C one = constant<S>(1);
    const C w = math::max<C>(t.chosen_length, one);
    const C l = math::max<C>(t.rejected_length, one);
    pair<S> r = t;
    r.chosen = S(t.chosen / w);
    r.rejected = S(t.rejected / l);
    r.gold = S(t.gold / math::max<C>(t.gold_length, one));
    r.ref_chosen = C(t.ref_chosen / w);
    r.ref_rejected = C(t.ref_rejected / l);
    return r;
}

// The lengths that go with the sums in `needs`.
constexpr unsigned lengths_for(unsigned needs) {
    const unsigned w = (needs & input::chosen::bit) != 0 ? input::chosen_length::bit : 0u;
    const unsigned l = (needs & input::rejected::bit) != 0 ? input::rejected_length::bit : 0u;
    return w | l | ((needs & input::gold::bit) != 0 ? input::gold_length::bit : 0u);
}

}  // namespace detail

// The same term on log-probabilities per token: every sum is divided by its response's length (a length of 0 as 1).
// per_token{dpo{}} is TRL's sigmoid_norm, per_token{ipo{}} is IPO as TRL and AReaL compute it.
template <term Term>
struct per_token {
    static constexpr unsigned needs = Term::needs | detail::lengths_for(Term::needs);
    Term term;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const { return S(term(detail::averaged(t))); }
    problem validate(const char* function) const { return detail::validate_term(term, function); }
};
template <term Term>
per_token(const Term&) -> per_token<Term>;

// The same term where a judge says afterwards which response won: `chosen` holds the first response, `rejected` the
// second, and they trade places unless `preferred` is above 0. Online DPO (arXiv 2402.04792) is judged{dpo{}} or judged{ipo{}}
// on two responses of the current policy.
template <term Term>
struct judged {
    static constexpr unsigned needs = Term::needs | input::preferred::bit;
    Term term;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        using C = constant_t<S>;
        const C none(constant<S>(0));
        const mask_t<S> won = none < t.preferred;
        pair<S> r = t;
        r.chosen = math::select<S>(won, t.chosen, t.rejected);
        r.rejected = math::select<S>(won, t.rejected, t.chosen);
        r.ref_chosen = math::select<C>(won, t.ref_chosen, t.ref_rejected);
        r.ref_rejected = math::select<C>(won, t.ref_rejected, t.ref_chosen);
        r.chosen_length = math::select<C>(won, t.chosen_length, t.rejected_length);
        r.rejected_length = math::select<C>(won, t.rejected_length, t.chosen_length);
        return S(term(r));
    }
    problem validate(const char* function) const { return detail::validate_term(term, function); }
};
template <term Term>
judged(const Term&) -> judged<Term>;

// A constant factor per pair: by_pair_weight{} * dpo{} with wpo_weights is WPO (arXiv 2406.11827).
struct by_pair_weight {
    static constexpr unsigned needs = input::pair_weight::bit;
    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const { return S(t.pair_weight); }
};

}  // namespace grpo::inline v0
