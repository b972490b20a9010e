// GRPO as eight frameworks compute it, from rewards to the gradient, against the reference
// (tests/vectors/framework.json).
//
// Every parameter of a case is compared with the preset that the case is evaluated with: one that the preset does not
// have, or that nobody knows, is a failure. What a case changes from its framework's defaults is applied to the preset
// first.
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>
#include <grpo/recipe.hpp>

#include <support/vectors.hpp>

namespace {

namespace recipe = grpo::recipe;
using vectors::test_case;

constexpr double inf = std::numeric_limits<double>::infinity();

// ---- the parameters that a preset stands for, compared with those of the case

double bound_of(double x) {
    return x >= grpo::math::unbounded ? inf : x;
}

template <class T>
inline constexpr bool is_kl = false;
template <grpo::kl_estimator V, grpo::kl_gradient G>
inline constexpr bool is_kl<grpo::kl_penalty<V, G>> = true;

const char* name_of(grpo::kl_estimator e) {
    constexpr const char* names[] = {"k1", "k2", "k3", "abs"};
    return names[static_cast<int>(e)];
}
template <grpo::kl_estimator V, grpo::kl_gradient G>
const char* value_name(const grpo::kl_penalty<V, G>&) {
    return name_of(V);
}
template <grpo::kl_estimator V, grpo::kl_gradient G>
const char* gradient_name(const grpo::kl_penalty<V, G>&) {
    constexpr const char* names[] = {"own", "k2", "score", "importance", "sequence_importance"};
    return names[static_cast<int>(G)];
}

class comparison {
public:
    explicit comparison(const test_case& c) : case_(c) {}

    void number(const char* name, double of_preset) {
        INFO(name);
        seen_.insert(name);
        CHECK(case_.number(name) == of_preset);
    }
    void text(const char* name, const std::string& of_preset) {
        INFO(name);
        seen_.insert(name);
        CHECK(case_.text(name) == of_preset);
    }
    // A parameter of something that the case does not use.
    void idle(const char* name) { seen_.insert(name); }
    void all_known() const {
        const vectors::json& parameters = case_.data().at("parameters");
        for (auto p = parameters.begin(); p != parameters.end(); ++p) {
            const std::string name = p.key();
            INFO(name);
            CHECK(seen_.count(name) == 1);
        }
    }

private:
    const test_case& case_;
    std::set<std::string> seen_;
};

void compare_advantages(comparison& same, const recipe::advantage_rule& rule) {
    constexpr const char* baselines[] = {"mean", "leave_one_out"};
    constexpr const char* scales[] = {"group", "batch", "none", "leave_one_out", "about_baseline"};
    constexpr const char* placements[] = {"outside", "inside", "floor", "where_positive", "none"};
    constexpr const char* rules[] = {"zero", "raw_reward", "error"};
    CHECK(rule.kind == recipe::estimator::group);
    CHECK_FALSE(rule.whitened);
    same.number("reward_clip_before", bound_of(rule.reward_bound));
    same.number("reward_clip_after", bound_of(rule.advantage_bound));
    same.text("baseline", baselines[static_cast<int>(rule.group.baseline)]);
    same.text("scale", scales[static_cast<int>(rule.group.scale)]);
    same.number("ddof", rule.group.ddof);
    same.number("eps", rule.group.eps);
    same.text("eps_placement", placements[static_cast<int>(rule.group.placement)]);
    same.text("singleton", rules[static_cast<int>(rule.group.singleton)]);
}

template <class Policy>
void compare_policy(comparison& same, const Policy& policy) {
    constexpr bool on_policy = std::is_same_v<Policy, grpo::on_policy>;
    same.number("on_policy", on_policy ? 1.0 : 0.0);
    if constexpr (on_policy) {
        // The ratio is 1: neither a clip around it nor a bound of its logarithm can act.
        for (const char* name : {"low", "high", "dual_clip", "log_ratio_bound", "bound_gradient"}) same.idle(name);
    } else {
        same.number("low", policy.low);
        same.number("high", policy.high);
        same.number("log_ratio_bound", bound_of(policy.bound.bound));
        same.text("bound_gradient", policy.bound.gradient == grpo::outside::zero ? "zero" : "straight_through");
        if constexpr (requires { policy.c; }) {
            same.number("dual_clip", policy.c);
        } else {
            same.number("dual_clip", inf);
        }
    }
}

template <class Kl>
void compare_loss_kl(comparison& same, double beta, const Kl& kl) {
    static_assert(is_kl<Kl>);
    same.number("kl_coef", beta);
    same.text("kl_value", value_name(kl));
    same.text("kl_gradient", gradient_name(kl));
    same.number("kl_input_bound", bound_of(kl.bound.bound));
    same.number("kl_output_bound", bound_of(kl.output.bound));
}

void compare_reward_kl(comparison& same, const recipe::kl_rule& kl) {
    same.number("kl_coef", kl.beta);
    same.text("kl_value", name_of(kl.estimate));
    same.text("kl_gradient", "own");
    same.number("kl_input_bound", bound_of(kl.input.bound));
    same.number("kl_output_bound", bound_of(kl.output.bound));
}

template <class Recipe>
void compare_kl(comparison& same, const Recipe& r) {
    const recipe::kl_place place = r.kl();
    same.text("kl_place", place == recipe::kl_place::none     ? "none"
                          : place == recipe::kl_place::reward ? "reward"
                                                              : "loss");
    if constexpr (requires { r.objective.term.b.scale; }) {
        if (place == recipe::kl_place::loss)
            return compare_loss_kl(same, r.objective.term.b.scale, r.objective.term.b.a);
    }
    if (place == recipe::kl_place::reward) return compare_reward_kl(same, r.advantage.kl);
    same.number("kl_coef", 0.0);
    for (const char* name : {"kl_value", "kl_gradient", "kl_input_bound", "kl_output_bound"}) same.idle(name);
}

// What an aggregation is, from what it does to rows of 2 and 0 tokens.
void compare_aggregation(comparison& same, const test_case& c, const grpo::aggregation& over) {
    const grpo::totals two_rows{2, 1, 2};
    const double n = over.denominator(two_rows);
    const double eps = c.number("denominator_eps");
    same.idle("denominator_eps");
    same.idle("count_empty");
    if (over.coefficient(0, 2) == 1.0) {
        const bool global = c.has_parameter("denominator");
        same.text("aggregation", global ? "token_mean_global" : "token_mean");
        CHECK(n == 2.0 + eps);
    } else {
        same.text("aggregation", "sequence_mean_token_mean");
        CHECK(over.coefficient(0, 2) == 0.5);
        CHECK(n == (c.flag("count_empty") ? 2.0 : 1.0) + eps);
    }
    if (c.has_parameter("denominator")) same.idle("denominator");
}

void compare_correction(comparison& same, const test_case& c, const recipe::card& r) {
    same.idle("correction");
    same.idle("correction_high");
    if (c.text("correction") == "none") return;
    CHECK(c.text("correction") == "sequence_mask");
    CHECK(r.corrected == recipe::correction_use::on_request);
    CHECK(r.correction.level == grpo::correction_level::sequence);
    CHECK(r.correction.action == grpo::out_of_band::drop);
    CHECK(r.correction.low == 0.0);
    CHECK(r.correction.high == c.number("correction_high"));
}

template <class Recipe>
auto policy_of(const Recipe& r) {
    if constexpr (requires { r.objective.term.a; })
        return r.objective.term.a;
    else
        return r.objective.term;
}

template <class Recipe>
void compare(const test_case& c, const Recipe& r) {
    comparison same(c);
    compare_advantages(same, r.advantage);
    compare_policy(same, policy_of(r));
    compare_kl(same, r);
    compare_aggregation(same, c, r.objective.over);
    compare_correction(same, c, r);
    same.all_known();
}

// ---- from rewards to the gradient

template <class T>
struct arrays {
    std::vector<std::int64_t> cu, groups;
    std::vector<std::uint8_t> mask;
    std::vector<T> reward, logp, logp_old, logp_ref, logp_rollout, per_sequence, advantage, scratch, weight;

    explicit arrays(const test_case& c)
        : cu(c.input<std::int64_t>("cu_seqlens")),
          groups(c.input<std::int64_t>("group_offsets")),
          mask(c.input<std::uint8_t>("mask")),
          reward(c.input<T>("reward")),
          logp(of(c, "logp")),
          logp_old(of(c, "logp_old")),
          logp_ref(of(c, "logp_ref")),
          logp_rollout(of(c, "logp_rollout")),
          per_sequence(reward.size(), T(7)),
          advantage(mask.size(), T(7)),
          scratch(mask.size(), T(7)),
          weight(mask.size(), T(7)) {}

    auto tokens() const { return grpo::ragged(cu).where(mask); }

    // An input that the case does not have stays a null pointer: nothing may read it.
    grpo::view<const T> optional(const std::vector<T>& x) const { return {x.empty() ? nullptr : x.data(), size()}; }
    std::int64_t size() const { return static_cast<std::int64_t>(mask.size()); }
    auto batch() const {
        return grpo::batch(tokens(), grpo::logp(logp), grpo::logp_old(optional(logp_old)),
                           grpo::logp_ref(optional(logp_ref)), grpo::advantage(advantage), grpo::weight(weight));
    }

private:
    static std::vector<T> of(const test_case& c, const char* name) {
        return c.has(name) ? c.input<T>(name) : std::vector<T>();
    }
};

template <class T, class Recipe>
void advantages(const test_case& c, const Recipe& r, arrays<T>& x) {
    const double tolerance = c.tolerance<T>();
    const auto groups = grpo::ragged(x.groups);
    r.advantages(groups, x.reward, x.per_sequence);
    CHECK(vectors::difference(x.per_sequence, c.expected<double>("advantage"), tolerance) == "");
    std::vector<T> again(x.per_sequence.size(), T(7));
    const grpo::view<const T> reward(x.reward);
    r.advantage.by_token(
        groups, x.tokens(),
        recipe::token_inputs<T>{
            .reward = reward, .logp_old = x.optional(x.logp_old), .logp_ref = x.optional(x.logp_ref)},
        recipe::token_outputs<T>{.advantage = x.advantage, .per_sequence = again, .reward_token = x.scratch});
    CHECK(again == x.per_sequence);
    if (c.expects("advantage_token")) {
        CHECK(vectors::difference(x.advantage, c.expected<double>("advantage_token"), tolerance) == "");
    }
}

template <class T>
void weights(const test_case& c, const recipe::card& r, arrays<T>& x) {
    if (c.text("correction") == "none") return;
    const grpo::batch b(x.tokens(), grpo::logp_old(x.logp_old), grpo::logp_rollout(x.logp_rollout));
    grpo::correction_weights(b, r.correction, x.weight);
}

template <class T, class Objective>
double evaluate(const Objective& loss, const arrays<T>& x, double n, std::vector<T>& gradient) {
    gradient.assign(x.mask.size(), T(7));
    const auto result = grpo::evaluate(grpo::serial{}, loss, x.batch(), n, grpo::d_logp(gradient));
    CHECK(result.nonfinite == 0);
    return result.loss(n);
}

// The loss and its gradient, and its parts where the reference has them.
template <class T, class Objective>
void losses(const test_case& c, const Objective& loss, const arrays<T>& x, double n) {
    const double tolerance = c.tolerance<T>();
    std::vector<T> gradient;
    CHECK(vectors::close(evaluate(loss, x, n, gradient), c.value(), tolerance));
    CHECK(vectors::difference(gradient, c.expected<double>("gradient/logp"), tolerance) == "");
    if constexpr (requires { loss.term.b.scale; }) {
        const grpo::objective policy{loss.term.a, loss.over};
        CHECK(vectors::close(evaluate(policy, x, n, gradient), c.expected_number("policy_loss"), tolerance));
        if (c.expects("kl")) {
            const grpo::objective kl{loss.term.b.a, loss.over};
            CHECK(vectors::close(evaluate(kl, x, n, gradient), c.expected_number("kl"), tolerance));
        }
    } else {
        CHECK(vectors::close(c.value(), c.expected_number("policy_loss"), tolerance));
        CHECK_FALSE(c.expects("kl"));
    }
}

template <class T, class Recipe>
void run(const test_case& c, const Recipe& r) {
    arrays<T> x(c);
    advantages(c, r, x);
    weights(c, r, x);
    grpo::totals count = grpo::count(x.tokens());
    if (c.has_parameter("denominator")) count.tokens = static_cast<std::int64_t>(c.number("denominator"));
    const double n = r.objective.over.denominator(count);
    if (c.text("correction") == "none") {
        losses(c, r.objective, x, n);
    } else {
        losses(c, r.weighted(), x, n);
    }
}

// f(make): make() is the framework's preset, make(beta) the same with another coefficient of its KL.
template <class F>
bool with_framework(const std::string& name, const F& f) {
    if (name == "trl") return f([](auto... beta) { return recipe::trl(beta...); }), true;
    if (name == "verl") return f([](auto... beta) { return recipe::verl(beta...); }), true;
    if (name == "openrlhf") return f([](auto... beta) { return recipe::openrlhf(beta...); }), true;
    if (name == "nemo_rl") return f([](auto... beta) { return recipe::nemo_rl(beta...); }), true;
    if (name == "slime") return f([](auto... beta) { return recipe::slime(beta...); }), true;
    if (name == "areal") return f([](auto... beta) { return recipe::areal(beta...); }), true;
    if (name == "tunix") return f([](auto... beta) { return recipe::tunix(beta...); }), true;
    if (name == "torchtune") return f([](auto... beta) { return recipe::torchtune(beta...); }), true;
    return false;
}

}  // namespace

TEST_CASE("R1.46 each framework's preset gives that framework's advantages, loss and gradient") {
    std::set<std::string> frameworks;
    for (const test_case& c : vectors::load("framework")) {
        INFO(c.id());
        frameworks.insert(c.method());
        CHECK(with_framework(c.method(), [&](const auto& make) {
            const auto r = make(c.text("kl_place") == "none" ? 0.0 : c.number("kl_coef"));
            CHECK(c.method() == r.name);
            compare(c, r);
            run<double>(c, r);
            run<float>(c, r);
        }));
    }
    CHECK(frameworks.size() == 8);
}

TEST_CASE("R1.46 a preset called without arguments is its framework's default") {
    std::set<std::string> frameworks;
    for (const test_case& c : vectors::load("framework")) {
        if (c.id() != "F-" + c.method() + "-default") continue;
        INFO(c.id());
        frameworks.insert(c.method());
        CHECK(with_framework(c.method(), [&](const auto& make) { compare(c, make()); }));
    }
    CHECK(frameworks.size() == 8);
}
