// Recipes: their constants against the papers, their table, and that each of them computes what it names.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>
#include <grpo/recipe.hpp>

#include <support/sentence.hpp>

namespace {

using errors::contains;
using errors::sentence;

namespace recipe = grpo::recipe;
using doctest::Approx;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// Two groups of three outputs; a hole, and NaN behind the mask.
struct rollouts {
    std::vector<std::int64_t> cu{0, 3, 5, 9, 10, 13, 15};
    std::vector<std::uint8_t> mask{1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    std::vector<double> reward{1, 0, 0.5, 0, 1, 0};
    std::vector<double> advantage{1.2, -1.1, 0.3, -0.5, 0.9, -0.8};
    std::vector<double> logp{-0.9, -1.2, -0.4, -2.0, -0.7, -1.1, nan, -0.8, -1.6, -0.5, -1.3, -0.2, -2.2, -0.6, -1.0};
    std::vector<double> logp_old{-1.0, -1.1, -0.9, -2.1,  -0.7, -1.5, nan, -0.7,
                                 -1.6, -0.6, -1.1, -0.25, -2.0, -0.9, -0.7};
    std::vector<double> logp_ref{-1.1, -1.0, -0.8, -2.0, -0.8, -1.4, nan, -0.7,
                                 -1.5, -0.6, -1.2, -0.3, -2.3, -0.5, -1.1};
    std::vector<double> logp_rollout{-1.0, -1.2, -0.9, -2.0, -0.7, -1.5, nan, -0.6,
                                     -1.6, -0.6, -1.1, -0.2, -2.1, -0.9, -0.8};
    std::vector<double> value{0.4, 0.5, 0.6, 0.3, 0.1, 0.5, nan, 0.5, 0.4, 0.2, 0.3, 0.6, 0.8, 0.2, 0.1};
    std::vector<double> squares{0.3, 0.2, 0.5, 0.1, 0.4, 0.3, nan, 0.4, 0.2, 0.5, 0.3, 0.8, 0.1, 0.4, 0.3};
    std::vector<double> weight{0.5, 1.5, 1, 1, 2, 1, nan, 1, 0.25, 1, 1, 1, 0.75, 1, 1};
    std::vector<double> greedy{0.5, 0.5, 0.5, 0.25, 0.25, 0.25};
    std::vector<double> keep = std::vector<double>(15, 1.0);
    std::vector<double> label{1, 0, 0, 0, 1, 0};
    std::vector<double> adv = std::vector<double>(15, 7.0), returns = adv, scratch = adv, base = adv,
                        of_sequence{7, 7, 7, 7, 7, 7};

    auto tokens() const { return grpo::ragged(cu).where(mask); }
    auto groups() const { return grpo::padded(2, 3); }
    auto batch(const double* reference) const {
        return grpo::batch(tokens(), grpo::logp(logp), grpo::logp_old(logp_old),
                           grpo::logp_ref(grpo::view<const double>(reference, 15)), grpo::logp_rollout(logp_rollout),
                           grpo::advantage(grpo::by_sequence(advantage)), grpo::weight(weight), grpo::keep(keep),
                           grpo::label(grpo::by_sequence(label)));
    }
    recipe::token_inputs<double> inputs() const {
        return {.reward = grpo::view<const double>(reward),
                .logp_old = grpo::view<const double>(logp_old),
                .logp_ref = grpo::view<const double>(logp_ref),
                .value = grpo::view<const double>(value),
                .greedy_reward = grpo::view<const double>(greedy),
                .sum_probability_squared = grpo::view<const double>(squares)};
    }
    recipe::token_outputs<double> outputs() {
        return {.advantage = adv,
                .returns = returns,
                .per_sequence = of_sequence,
                .reward_token = scratch,
                .baseline = base};
    }
    const std::vector<double>& by_token(const recipe::advantage_rule& rule) {
        rule.by_token(groups(), tokens(), inputs(), outputs());
        return adv;
    }
    std::vector<double> by_sequence(const recipe::advantage_rule& rule) const {
        std::vector<double> out(reward.size(), 7.0);
        rule.by_sequence(groups(), tokens(), reward, out);
        return out;
    }
};

template <class Recipe>
constexpr bool of_pairs = requires(const Recipe& r) {
    requires(std::remove_cvref_t<decltype(r.objective.term)>::needs & grpo::input::chosen::bit) != 0;
};

bool token_mean(const grpo::aggregation& a) {
    return a.coefficient(0, 4) == 1.0 && a.denominator({3, 2, 8}) == 8.0;
}
bool sequence_mean(const grpo::aggregation& a) {
    return a.coefficient(0, 4) == 0.25 && a.denominator({3, 2, 8}) == 2.0;
}
bool sequence_sum(const grpo::aggregation& a) {
    return a.coefficient(0, 4) == 1.0 && a.denominator({3, 2, 8}) == 2.0;
}

}  // namespace

// ---- constants: the number in the paper (or framework) that the comment of each recipe cites

TEST_CASE("recipes with a clip carry the widths of their papers") {
    CHECK(recipe::grpo().objective.term.a.low == 0.2);
    CHECK(recipe::grpo().objective.term.a.high == 0.2);
    CHECK(recipe::grpo().objective.term.b.scale == 0.04);  // 2402.03300, §4.2
    CHECK(recipe::deepseek_r1().objective.term.a.low == 10);
    CHECK(recipe::deepseek_r1().objective.term.a.high == 10);
    CHECK(recipe::deepseek_r1().objective.term.b.scale == 0.001);
    CHECK(recipe::dapo().objective.term.low == 0.2);  // 2503.14476, §4.1
    CHECK(recipe::dapo().objective.term.high == 0.28);
    CHECK(recipe::vapo().objective.term.high == 0.28);
    CHECK(recipe::high_entropy().objective.term.b.high == 0.28);
    CHECK(recipe::gspo().objective.term.low == 3e-4);  // 2507.18071, §5.1
    CHECK(recipe::gspo().objective.term.high == 4e-4);
    CHECK(recipe::gspo_token().objective.term.low == 3e-4);
    CHECK(recipe::gspo_token().objective.term.high == 4e-4);
    CHECK(recipe::luspo().objective.term.high == 4e-4);
    CHECK(recipe::gmpo().objective.term.low == 0.4);
    CHECK(recipe::gmpo().objective.term.high == 0.4);
    CHECK(recipe::ppo().objective.term.low == 0.2);
    CHECK(recipe::ppo().objective.term.high == 0.2);
    CHECK(recipe::dual_clip().objective.term.c == 3.0);
    CHECK(recipe::decoupled_ppo().objective.term.low == 0.2);
    CHECK(recipe::decoupled_ppo().objective.term.high == 0.2);
}

TEST_CASE("recipes without a clip carry the constants of their papers") {
    CHECK(recipe::cispo().objective.term.low == 0.2);
    CHECK(recipe::cispo().objective.term.high == 0.2);
    CHECK(recipe::cispo_upper().objective.term.cap == 5.0);
    CHECK(1 - recipe::minimax_m1().objective.term.low == 0.0);  // a ratio is never below it
    CHECK(recipe::sapo().objective.term.tau_positive == 1.0);
    CHECK(recipe::sapo().objective.term.tau_negative == 1.05);
    CHECK(recipe::vespo().objective.term.k_positive == 2);
    CHECK(recipe::vespo().objective.term.lambda_positive == 3);
    CHECK(recipe::vespo().objective.term.k_negative == 3);
    CHECK(recipe::vespo().objective.term.lambda_negative == 2);
    CHECK(recipe::dppo_tv().objective.term.low == 0.2);
    CHECK(recipe::dppo_tv().objective.term.high == 0.2);
    CHECK(recipe::dppo_tv().objective.term.cap == 3.0);
    CHECK(recipe::dppo_kl().objective.term.cap == 3.0);
    CHECK(recipe::kl_cov().objective.term.coef == 1.0);
    CHECK(recipe::kl_cov().selection.band.fraction == 2e-4);
    CHECK(recipe::clip_cov().selection.band.fraction == 2e-4);  // 2505.22617: r = 2e-4, covariance in (1, 5)
    CHECK(recipe::clip_cov().selection.band.low == 1.0);
    CHECK(recipe::clip_cov().selection.band.high == 5.0);
    CHECK(recipe::high_entropy().selection.share == 0.2);
    CHECK(recipe::m2po().selection.threshold == 0.04);
    CHECK(recipe::icepop().correction.low == 0.5);
    CHECK(recipe::icepop().correction.high == 5.0);
    CHECK(recipe::icepop().correction.action == grpo::out_of_band::drop);
    CHECK(recipe::dpo().objective.term.beta == 0.1);  // 2305.18290, appendix B
    CHECK(recipe::deepseek_v3_2(0.3).objective.term.a.a.delta == 0.3);
    CHECK(recipe::dro(0.5).objective.term.beta == 0.5);
}

TEST_CASE("recipes carry the aggregation of their papers") {
    CHECK(sequence_mean(recipe::grpo().objective.over));
    CHECK(sequence_mean(recipe::deepseek_v3_2().objective.over));
    CHECK(token_mean(recipe::dapo().objective.over));
    CHECK(token_mean(recipe::lite_ppo().objective.over));
    CHECK(token_mean(recipe::vapo().objective.over));
    CHECK(token_mean(recipe::minimax_m1().objective.over));
    CHECK(sequence_mean(recipe::gspo().objective.over));
    CHECK(sequence_mean(recipe::gmpo().objective.over));
    CHECK(sequence_sum(recipe::luspo().objective.over));
    CHECK(sequence_sum(recipe::rloo().objective.over));
    CHECK(sequence_mean(recipe::sft().objective.over));
    CHECK(recipe::dr_grpo().objective.over.denominator({4, 3, 20}) == 4 * 3000.0);
    CHECK(recipe::dr_grpo(512).objective.over.denominator({4, 3, 20}) == 4 * 512.0);
}

TEST_CASE("recipes with returns carry the discounts and whitening of their papers") {
    const auto ppo = recipe::ppo().advantage;
    CHECK(ppo.gamma == 1.0);
    CHECK(ppo.lambda == 0.95);
    CHECK(ppo.kl.beta == 0.02);  // 2203.02155, appendix C.4
    const auto vapo = recipe::vapo().advantage;
    CHECK(vapo.alpha == 0.05);  // 2504.05118
    CHECK(vapo.lambda_value == 1.0);
    const auto plus_plus = recipe::reinforce_plus_plus().advantage;
    CHECK(plus_plus.gamma == 1.0);
    CHECK(plus_plus.kl.beta == 0.01);
    CHECK(plus_plus.kl.estimate == grpo::kl_estimator::k1);
    CHECK(plus_plus.whitening.ddof == 0);
    CHECK(plus_plus.whitening.placement == grpo::eps_placement::floor);
}

TEST_CASE("advantages by sequence, from rewards of 1, 0, 1/2 and 0, 1, 0") {
    const rollouts x;
    const double std2 = std::sqrt(1.0 / 3);  // of 0, 1, 0: (1/9 + 4/9 + 1/9) / 2
    const double mean = 2.5 / 6;             // of all six rewards; Σ r² = 2.25
    const double batch = std::sqrt((2.25 - 6 * mean * mean) / 5);
    const auto of = [&](const char* name) { return x.by_sequence(recipe::advantages(name)); };
    CHECK(of("grpo")[0] == Approx(0.5 / (0.5 + 1e-6)).epsilon(1e-14));
    CHECK(of("grpo")[4] == Approx(2.0 / 3 / (std2 + 1e-6)).epsilon(1e-14));
    CHECK(of("dr_grpo")[4] == Approx(2.0 / 3).epsilon(1e-14));
    CHECK(of("lite_ppo")[0] == Approx(0.5 / (batch + 1e-6)).epsilon(1e-13));
    CHECK(of("rloo")[0] == Approx(0.75).epsilon(1e-14));
    CHECK(of("rloo")[3] == Approx(-0.5).epsilon(1e-14));
    CHECK(of("gpg")[0] == Approx(0.5 * 6 / 3).epsilon(1e-14));  // three of six earned something
    CHECK(of("pass_at_k")[0] == Approx(0.5 / (0.5 + 1e-6)).epsilon(1e-14));
    CHECK(of("pass_at_k")[2] == 0.0);
    CHECK(of("opo")[0] == Approx(1 - (3 * 1 + 2 * 0 + 3 * 0.5) / 8).epsilon(1e-14));  // lengths 3, 2, 3: one is masked
    CHECK(of("reinforce") == x.reward);
    CHECK(of("nemo_rl")[4] == 1.0);  // the others are equal: undivided
    CHECK(of("trl")[0] == Approx(0.5 / (0.5 + 1e-4)).epsilon(1e-14));
}

// ---- the table

TEST_CASE("every recipe is found by its name, once, with its source") {
    std::set<std::string> seen;
    for (const char* name : recipe::names()) {
        INFO(name);
        CHECK(seen.insert(name).second);
        int visits = 0;
        recipe::visit(name, [&](const auto& r) {
            ++visits;
            CHECK(std::strcmp(r.name, name) == 0);
        });
        CHECK(visits == 1);
        const recipe::card c = recipe::find(name);
        CHECK(std::strlen(c.source) > 0);
        CHECK(std::strlen(c.summary) > 0);
        CHECK(c.advantage.kind == recipe::advantages(name).kind);
    }
    CHECK(static_cast<int>(seen.size()) == recipe::cards().size);
    CHECK(recipe::cards().size <= 64);  // the room of its list
    CHECK(seen.size() >= 51);
    for (const char* name : {"trl", "verl", "openrlhf", "nemo_rl", "slime", "areal", "tunix", "torchtune"}) {
        CHECK(seen.count(name) == 1);
    }
}

TEST_CASE("an unknown name is an error that names the function, the name and the nearest ones") {
    const std::string visited = sentence([] { recipe::visit("gropo", [](const auto&) { FAIL("called"); }); });
    CHECK(contains(visited, "grpo::recipe::visit: name is \"gropo\""));
    CHECK(contains(visited, " grpo"));
    CHECK(contains(visited, " gmpo"));
    CHECK(contains(visited, "recipe::names()"));
    CHECK(contains(sentence([] { recipe::advantages("reinforce++"); }), "reinforce"));
    CHECK(contains(sentence([] { recipe::find("DAPO"); }), "\"DAPO\""));
    CHECK(contains(sentence([] { recipe::find(""); }), "recipe::names()"));
    CHECK(contains(sentence([] { recipe::find(nullptr); }), "recipe::names()"));
    CHECK(contains(sentence([] { recipe::find("reinforce_plus_plus_"); }), "are reinforce_plus_plus, "));
    const std::string endless(1000, 'x');
    const std::string cut = sentence([&] { recipe::visit(endless.c_str(), [](const auto&) {}); });
    CHECK(contains(cut, "recipe::names()"));
    CHECK(cut.size() < 320);
}

// ---- every recipe computes

TEST_CASE("R1.22 every recipe has a finite loss and gradient, and reads a reference only where its KL is in the loss") {
    const rollouts x;
    int evaluated = 0;
    recipe::for_each([&](const auto& r) {
        INFO(r.name);
        if constexpr (!of_pairs<decltype(r)>) {
            CHECK(r.reads_reference() == (r.kl() == recipe::kl_place::loss));
            const double* reference = r.reads_reference() ? x.logp_ref.data() : nullptr;
            std::vector<double> g(15, 7.0);
            const double n = r.objective.over.denominator(grpo::count(x.tokens()));
            const auto result = grpo::evaluate(grpo::serial{}, r.objective, x.batch(reference), n, grpo::d_logp(g));
            CHECK(result.nonfinite == 0);
            CHECK(std::isfinite(result.loss(n)));
            double size = 0;
            for (const double d : g) size += std::fabs(d);
            CHECK(std::isfinite(size));
            CHECK(size > 0);
            CHECK(g[6] == 0.0);
            ++evaluated;
        }
    });
    CHECK(evaluated == recipe::cards().size - 1);
}

TEST_CASE("dpo is evaluated on pairs") {
    const std::vector<double> w{-3.0, -2.0}, l{-4.0, -1.0}, rw{-3.5, -2.0}, rl{-3.0, -2.0};
    std::vector<double> gw(2, 7.0), gl(2, 7.0);
    const auto r = recipe::dpo();
    const grpo::batch b(grpo::padded(1, 2), grpo::chosen(w), grpo::rejected(l), grpo::ref_chosen(rw),
                        grpo::ref_rejected(rl));
    const auto result = grpo::evaluate(grpo::serial{}, r.objective, b, 2.0, grpo::d_chosen(gw), grpo::d_rejected(gl));
    const double first = std::log1p(std::exp(-0.1 * 1.5));  // (0.5) - (-1)
    const double second = std::log1p(std::exp(0.1 * 1.0));
    CHECK(result.loss(2.0) == Approx((first + second) / 2).epsilon(1e-14));
    CHECK(gw[0] == Approx(-gl[0]).epsilon(1e-14));
    CHECK_FALSE(r.advantage.gives_sequences());
}

TEST_CASE("R1.22 beta = 0 accepts a null reference in the loss and in the reward") {
    rollouts x;
    const auto check = [&](const auto& r) {
        INFO(r.name);
        CHECK(r.kl() == recipe::kl_place::none);
        std::vector<double> g(15, 7.0);
        const double n = r.objective.over.denominator(grpo::count(x.tokens()));
        const auto result = grpo::evaluate(grpo::serial{}, r.objective, x.batch(nullptr), n, grpo::d_logp(g));
        CHECK(std::isfinite(result.loss(n)));
        auto in = x.inputs();
        in.logp_ref = {};
        r.advantage.by_token(x.groups(), x.tokens(), in, x.outputs());
        CHECK(std::isfinite(x.adv[0]));
    };
    check(recipe::grpo(0.0));
    check(recipe::deepseek_r1(0.0));
    check(recipe::deepseek_v3_2(0.1, 0.0));
    check(recipe::reinforce_plus_plus(0.0));
    check(recipe::reinforce_plus_plus_baseline(0.0));
    check(recipe::ppo(0.0));
    check(recipe::trl());
    check(recipe::verl());
    check(recipe::slime());
    check(recipe::openrlhf(0.0));
    check(recipe::nemo_rl(0.0));
    check(recipe::areal(0.0));
    check(recipe::tunix(0.0));
    check(recipe::torchtune(0.0));
}

TEST_CASE("a KL switched on is in the place that the recipe names") {
    CHECK(recipe::grpo().kl() == recipe::kl_place::loss);
    CHECK(recipe::verl(0.001).kl() == recipe::kl_place::loss);
    CHECK(recipe::openrlhf().kl() == recipe::kl_place::reward);
    CHECK(recipe::areal().kl() == recipe::kl_place::reward);
    CHECK(recipe::ppo().kl() == recipe::kl_place::reward);
    CHECK(recipe::dapo().kl() == recipe::kl_place::none);
}

TEST_CASE("every recipe but those of several rewards and of none has advantages by token, 0 where masked") {
    rollouts x;
    int computed = 0;
    for (const recipe::card& c : recipe::cards()) {
        INFO(c.name);
        const auto kind = c.advantage.kind;
        if (kind == recipe::estimator::none || kind == recipe::estimator::gdpo) {
            CHECK(contains(sentence([&] { x.by_token(c.advantage); }), "grpo::recipe::advantage_rule::by_token: kind is"));
            continue;
        }
        x.adv.assign(15, 7.0);
        double size = 0;
        for (const double a : x.by_token(c.advantage)) size += std::fabs(a);
        CHECK(std::isfinite(size));
        CHECK(size > 0);
        CHECK(x.adv[6] == 0.0);
        ++computed;
    }
    CHECK(computed == recipe::cards().size - 6);
}

// ---- the rule's steps against the calls they stand for

TEST_CASE("PPO's advantages are GAE on rewards that hold the KL, whitened") {
    rollouts x;
    std::vector<double> reward(15), a(15), g(15);
    grpo::place_outcome(x.tokens(), x.reward, reward);
    const grpo::kl_penalty<grpo::kl_estimator::k1> k1{.bound = {.bound = grpo::math::unbounded}};
    grpo::kl_in_reward(x.tokens(), k1, 0.02, reward, x.logp_old, x.logp_ref, reward);
    const grpo::view<const double> r(reward), v(x.value);
    grpo::gae(x.tokens(), grpo::gae_inputs<double>{.reward = r, .value = v}, {.gamma = 1.0, .lambda = 0.95}, a, g);
    grpo::whiten(x.tokens(), a, a);
    CHECK(x.by_token(recipe::ppo().advantage) == a);
    CHECK(x.returns == g);
}

TEST_CASE("REINFORCE++ with a baseline is the centred reward less the KL to come, whitened") {
    rollouts x;
    std::vector<double> centred(6), a(15);
    grpo::dr_grpo(x.groups(), x.reward, centred);
    for (int s = 0; s < 6; ++s) {
        double to_go = centred[static_cast<std::size_t>(s)];
        for (auto t = static_cast<std::size_t>(x.cu[static_cast<std::size_t>(s) + 1]);
             t-- > static_cast<std::size_t>(x.cu[static_cast<std::size_t>(s)]);) {
            if (x.mask[t] == 0) continue;
            to_go -= 0.01 * (x.logp_old[t] - x.logp_ref[t]);
            a[t] = to_go;
        }
    }
    grpo::whiten(x.tokens(), a, a, {.ddof = 0, .eps = 1e-4, .placement = grpo::eps_placement::floor});
    const std::vector<double>& got = x.by_token(recipe::reinforce_plus_plus_baseline().advantage);
    for (std::size_t t = 0; t < 15; ++t) CHECK(got[t] == Approx(a[t]).epsilon(1e-12));
}

TEST_CASE("VAPO, ReMax and the optimal token baseline are the library's functions of those names") {
    rollouts x;
    std::vector<double> reward(15), a(15), g(15), b(15);
    grpo::place_outcome(x.tokens(), x.reward, reward);
    const grpo::view<const double> r(reward), v(x.value), old(x.logp_old), squares(x.squares);
    grpo::vapo(x.tokens(), grpo::gae_inputs<double>{.reward = r, .value = v}, grpo::vapo_options{}, a, g);
    CHECK(x.by_token(recipe::vapo().advantage) == a);
    CHECK(x.returns == g);
    grpo::remax(x.tokens(), reward, x.greedy, a, g);
    CHECK(x.by_token(recipe::remax().advantage) == a);
    grpo::optimal_token_baseline(
        x.groups(), x.tokens(),
        grpo::otb_inputs<double>{.reward = r, .logp_old = old, .sum_probability_squared = squares}, a, g, b);
    CHECK(x.by_token(recipe::otb().advantage) == a);
    CHECK(x.base == b);
}

TEST_CASE("R1.34 every option of an advantage rule acts") {
    rollouts x;
    const auto differ = [&](const recipe::advantage_rule& one, const recipe::advantage_rule& other) {
        const std::vector<double> first = x.by_token(one);
        const std::vector<double> first_returns = x.returns;
        return first != x.by_token(other) || first_returns != x.returns;
    };
    using recipe::estimator;
    CHECK(differ({}, {.group = {.eps = 0.5}}));
    CHECK(differ({}, {.reward_bound = 0.75}));
    CHECK(differ({}, {.advantage_bound = 0.5}));
    CHECK(differ({}, {.kl = {.beta = 0.1}}));
    CHECK(differ({.kl = {.beta = 0.1}}, {.kl = {.beta = 0.1, .estimate = grpo::kl_estimator::k3}}));
    CHECK(differ({.kl = {.beta = 0.1}}, {.kl = {.beta = 0.1, .input = {.bound = 0.05}}}));
    CHECK(differ({.kl = {.beta = 0.1}}, {.kl = {.beta = 0.1, .output = {.bound = 0.05}}}));
    CHECK(differ({}, {.whitened = true}));
    CHECK(differ({.whitened = true}, {.whitened = true, .whitening = {.eps = 0.5}}));
    CHECK(differ({.kind = estimator::returns}, {.kind = estimator::returns, .gamma = 0.5}));
    CHECK(differ({.kind = estimator::gae}, {.kind = estimator::gae, .gamma = 0.5}));
    CHECK(differ({.kind = estimator::gae}, {.kind = estimator::gae, .lambda = 0.5}));
    CHECK(differ({.kind = estimator::vapo}, {.kind = estimator::vapo, .lambda_value = 0.5}));
    CHECK(differ({.kind = estimator::vapo}, {.kind = estimator::vapo, .alpha = 0.5}));
    CHECK(differ({.kind = estimator::pass_at_k}, {.kind = estimator::pass_at_k, .group = {.ddof = 0}}));
    CHECK(differ({.kind = estimator::pass_at_k}, {.kind = estimator::pass_at_k, .group = {.eps = 0.5}}));
}

TEST_CASE("a rule's lone outputs follow its singleton rule") {
    const std::vector<double> reward{3.0};
    for (const char* name : {"opo", "gpg", "verl"}) {
        INFO(name);
        std::vector<double> a(1, 7.0);
        recipe::advantages(name).by_sequence(grpo::padded(1, 1), grpo::padded(1, 2), reward, a);
        CHECK(a[0] == Approx(3.0).epsilon(1e-5));
    }
    for (const char* name : {"grpo", "rloo", "trl", "nemo_rl"}) {
        INFO(name);
        std::vector<double> a(1, 7.0);
        recipe::advantages(name).by_sequence(grpo::padded(1, 1), reward, a);
        CHECK(a[0] == 0.0);
    }
}

TEST_CASE("a rule's singleton rule is handed to every estimator") {
    const std::vector<double> reward{3.0};
    using recipe::estimator;
    for (const estimator kind : {estimator::group, estimator::opo, estimator::gpg, estimator::pass_at_k}) {
        INFO(static_cast<int>(kind));
        std::vector<double> zero(1, 7.0), own(1, 7.0);
        const auto lone = grpo::padded(1, 1);
        recipe::advantage_rule{.kind = kind, .group = {.singleton = grpo::singleton_rule::zero}}.by_sequence(
            lone, lone, reward, zero);
        recipe::advantage_rule{.kind = kind, .group = {.singleton = grpo::singleton_rule::raw_reward}}.by_sequence(
            lone, lone, reward, own);
        CHECK(zero[0] == 0.0);
        CHECK(own[0] == Approx(3.0).epsilon(1e-5));
    }
}

TEST_CASE("token rewards are discounted into the advantages, and the returns are the same before any whitening") {
    rollouts x;
    const std::vector<double>& a = x.by_token({.kind = recipe::estimator::returns, .gamma = 0.5});
    CHECK(a[0] == 0.25);  // the reward 1, two tokens later
    CHECK(a[2] == 1.0);
    CHECK(a[5] == 0.125);  // the reward 1/2, past a hole that is no step
    CHECK(x.returns == a);
}

TEST_CASE("misuse of a rule is an error that names what is missing, and nothing is written") {
    rollouts x;
    std::vector<double> out(6, 7.0);
    const std::vector<double> untouched(15, 7.0);
    CHECK(contains(sentence([&] { recipe::advantages("ppo").by_sequence(x.groups(), x.reward, out); }), "by_token"));
    CHECK(
        contains(sentence([&] { recipe::advantages("opo").by_sequence(x.groups(), x.reward, out); }), "shape of the tokens"));
    CHECK(contains(sentence([&] { recipe::advantages("sft").by_sequence(x.groups(), x.reward, out); }), "kind is 0"));
    const auto refused = [&](const char* name, const char* part, auto&& spoil) {
        auto in = x.inputs();
        auto to = x.outputs();
        spoil(in, to);
        const std::string text = sentence([&] { recipe::advantages(name).by_token(x.groups(), x.tokens(), in, to); });
        INFO(text);
        CHECK(contains(text, "grpo::recipe::advantage_rule::by_token: "));
        CHECK(contains(text, part));
        CHECK(x.adv == untouched);
        CHECK(x.scratch == untouched);
    };
    refused("ppo", "value has 0 entries", [](auto& in, auto&) { in.value = {}; });
    refused("ppo", "logp_ref has 0 entries", [](auto& in, auto&) { in.logp_ref = {}; });
    refused("openrlhf", "logp_old has 0 entries", [](auto& in, auto&) { in.logp_old = {}; });
    refused("openrlhf", "reward_token has 0 entries", [](auto&, auto& to) { to.reward_token = {}; });
    refused("remax", "greedy_reward has 0 entries", [](auto& in, auto&) { in.greedy_reward = {}; });
    refused("otb", "baseline has 0 entries", [](auto&, auto& to) { to.baseline = {}; });
    refused("grpo", "per_sequence has 0 entries", [](auto&, auto& to) { to.per_sequence = {}; });
    refused("grpo", "reward has 0 entries", [](auto& in, auto&) { in.reward = {}; });
    recipe::advantage_rule cut = recipe::nemo_rl().advantage;
    cut.reward_bound = 1.0;
    CHECK(contains(sentence([&] { cut.by_sequence(x.groups(), x.reward, out); }), "reward_bound is 1"));
    cut = {.reward_bound = -1.0};
    CHECK(contains(sentence([&] { cut.by_sequence(x.groups(), x.reward, out); }), "reward_bound is -1"));
    CHECK(out == std::vector<double>(6, 7.0));
}

// ---- weights and denominators

TEST_CASE("weighted() multiplies the policy part by the rollout weight and leaves the KL alone") {
    const rollouts x;
    const auto r = recipe::grpo();
    const auto gradient = [&](const auto& loss) {
        std::vector<double> g(15, 7.0);
        (void)grpo::evaluate(grpo::serial{}, loss, x.batch(x.logp_ref.data()), 1.0, grpo::d_logp(g));
        return g;
    };
    const auto weighted = gradient(r.weighted());
    const auto policy = gradient(grpo::objective{r.objective.term.a, r.objective.over});
    const auto kl = gradient(grpo::objective{r.objective.term.b, r.objective.over});
    for (std::size_t t = 0; t < 15; ++t) {
        if (x.mask[t] != 0) CHECK(weighted[t] == Approx(x.weight[t] * policy[t] + kl[t]).epsilon(1e-13));
    }
    const auto plain = gradient(recipe::dapo().objective);
    const auto scaled = gradient(recipe::dapo().weighted());
    for (std::size_t t = 0; t < 15; ++t) {
        if (x.mask[t] != 0) CHECK(scaled[t] == Approx(x.weight[t] * plain[t]).epsilon(1e-13));
    }
}

TEST_CASE("plus_eps adds to the denominator alone, and must not be negative") {
    const rollouts x;
    const auto over = grpo::aggregation::token_mean().plus_eps(0.5);
    CHECK(over.denominator({3, 2, 8}) == 8.5);
    CHECK(over.denominator({0, 0, 0}) == 0.5);
    const grpo::objective loss{grpo::clipped{}, over};
    const auto result = grpo::evaluate(grpo::serial{}, loss, x.batch(nullptr), 14.5);
    CHECK(result.weight == 14.0);
    const grpo::objective wrong{grpo::clipped{}, grpo::aggregation::token_mean().plus_eps(-1)};
    CHECK(contains(sentence([&] { (void)grpo::evaluate(grpo::serial{}, wrong, x.batch(nullptr), 14.0); }),
              "is -1, but must be at least 0"));
}
