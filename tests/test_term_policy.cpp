// Policy terms against the reference vectors (tests/vectors/policy.json), in double and float.
#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/loss_cases.hpp>

namespace {

using vectors::layout;
using vectors::outcome;
using vectors::policy_inputs;
using vectors::test_case;

// Calls run(term) with the term that a case names; false if the method is unknown.
template <class Run>
bool ratio_term(const test_case& c, Run&& run) {
    const std::string m = c.method();
    const auto p = [&](const char* name) { return c.number(name, 0.0); };
    const grpo::safety_bound bound = vectors::safety_bound_of(c);
    if (m == "clip") run(grpo::clipped{p("low"), p("high"), bound});
    else if (m == "dual_clip") run(grpo::dual_clip{p("low"), p("high"), p("c"), bound});
    else if (m == "two_sided_clip") run(grpo::two_sided_clip{p("low"), p("high"), p("delta"), bound});
    else if (m == "decoupled_clip") run(grpo::decoupled_clip{p("low"), p("high"), bound});
    else if (m == "gspo") run(grpo::gspo{p("low"), p("high"), bound});
    else if (m == "luspo") run(grpo::luspo{p("low"), p("high"), bound});
    else if (m == "gspo_token") run(grpo::gspo_token{p("low"), p("high"), bound});
    else if (m == "gmpo") run(grpo::gmpo{p("low"), p("high"), bound});
    else if (m == "vespo") {
        run(grpo::vespo{p("k_positive"), p("lambda_positive"), p("k_negative"), p("lambda_negative"), bound});
    } else return false;
    return true;
}

template <class Run>
bool weighted_term(const test_case& c, Run&& run) {
    const std::string m = c.method();
    const auto p = [&](const char* name) { return c.number(name, 0.0); };
    const grpo::safety_bound bound = vectors::safety_bound_of(c);
    if (m == "cispo") run(grpo::cispo{p("low"), p("high"), bound});
    else if (m == "cispo_upper") run(grpo::cispo_upper{p("cap"), bound});
    else if (m == "sapo") run(grpo::sapo{p("tau_positive"), p("tau_negative"), bound});
    else if (m == "dppo_tv") run(grpo::dppo_tv{p("low"), p("high"), p("cap"), bound});
    else if (m == "dppo_kl") run(grpo::dppo_kl{p("low"), p("high"), p("cap"), bound});
    else if (m == "dro") run(grpo::dro{p("beta")});
    else if (m == "gpg") run(grpo::gpg{});
    else if (m == "reinforce") run(grpo::reinforce{});
    else if (m == "on_policy") run(grpo::on_policy{});
    else if (m == "positive_nll") run(grpo::positive_nll{p("coef")});
    else return false;
    return true;
}

// Terms whose tokens were selected beforehand, over the whole batch; the vectors say which (or the entropies do).
template <class Run>
bool selected_term(const test_case& c, Run&& run) {
    const std::string m = c.method();
    const auto p = [&](const char* name) { return c.number(name, 0.0); };
    const grpo::safety_bound bound = vectors::safety_bound_of(c);
    const grpo::clipped clip{p("low"), p("high"), bound};
    if (m == "kl_cov") run(grpo::kl_cov{p("coef"), bound});
    else if (m == "clip_cov" || m == "entropy_quantile" || m == "logp_error_mask" || m == "m2po") run(grpo::selected{} * clip);
    else if (m == "off_policy_mask" && c.has("logp_rollout")) {
        run(grpo::off_policy_mask_by<grpo::input::logp_rollout>{p("delta")} * clip);
    } else if (m == "off_policy_mask") run(grpo::off_policy_mask{p("delta")} * clip);
    else return false;
    return true;
}

// The tokens that the selection picks: from the expected outputs, since selecting is another function's business.
template <class T>
std::vector<T> keep_of(const test_case& c, const layout& l) {
    std::vector<T> keep(l.tokens(), T(0));
    if (c.expects("keep")) return c.expected<T>("keep");
    if (c.method() == "kl_cov") return c.expected<T>("selected");
    if (c.method() == "clip_cov") {
        const std::vector<int> dropped = c.expected<int>("selected");
        for (std::size_t t = 0; t < keep.size(); ++t) keep[t] = dropped[t] != 0 ? T(0) : T(1);
    }
    if (c.method() == "entropy_quantile") {
        std::vector<double> active;
        const std::vector<double> entropy = c.input<double>("entropy");
        for (std::size_t t = 0; t < keep.size(); ++t) if (l.mask()[t] != 0) active.push_back(entropy[t]);
        if (active.empty()) return keep;
        std::sort(active.begin(), active.end());
        const double at = (1 - c.number("keep")) * static_cast<double>(active.size() - 1);
        const std::size_t below = static_cast<std::size_t>(at);
        const std::size_t above = std::min(below + 1, active.size() - 1);
        const double threshold = active[below] + (at - static_cast<double>(below)) * (active[above] - active[below]);
        for (std::size_t t = 0; t < keep.size(); ++t) keep[t] = entropy[t] >= threshold ? T(1) : T(0);
    }
    return keep;
}

// Where dropped tokens leave the denominators, the selection becomes the mask.
test_case shrunk(const test_case& c) {
    if (!c.has_parameter("denominator_counts") || c.text("denominator_counts") != "kept") return c;
    vectors::json data = c.data();
    data["inputs"]["mask"] = data["expected"]["keep"];
    return test_case(data);
}

template <class T>
void check(const test_case& original) {
    const test_case c = shrunk(original);
    INFO(c.id());
    const layout l(c);
    policy_inputs<T> in(c, l);
    in.keep = keep_of<T>(c, l);
    const auto compare = [&](const auto& term) {
        outcome got;
        if (c.has("weight")) got = vectors::evaluate(grpo::rollout_weighted{} * term, l, in);
        else got = vectors::evaluate(term, l, in);
        CHECK_MESSAGE(vectors::close(got.value, c.value(), c.tolerance<T>()), got.value, " expected ", c.value());
        CHECK(vectors::difference(got.gradient, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
        CHECK(got.result.nonfinite == 0);
    };
    const bool known = ratio_term(c, compare) || weighted_term(c, compare) || selected_term(c, compare);
    CHECK_MESSAGE(known, "unknown method ", c.method());
}

TEST_CASE("policy terms equal the reference in value and gradient (double)") {
    for (const test_case& c : vectors::load("policy")) check<double>(c);
}

TEST_CASE("policy terms equal the reference in value and gradient (float)") {
    for (const test_case& c : vectors::load("policy")) check<float>(c);
}

}  // namespace
