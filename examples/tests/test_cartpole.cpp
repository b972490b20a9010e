// PPO of examples/cartpole against CleanRL's formulas composed of torch's own operations, and what a run must do.
#include <grpo/adapt/torch.hpp>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "cartpole/ppo.hpp"
#include "cartpole/runs.hpp"
#include "support/blas.hpp"
#include "support/error.hpp"

namespace {

using at::Tensor;
using control::settings;

// Networks of this size gain nothing from threads.
const bool single_threaded = (at::set_num_threads(1), support::set_blas_threads(1), true);

double difference(const Tensor& a, const Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

double parameter_difference(control::agent& a, control::agent& b) {
    double most = 0;
    const auto p = a->parameters();
    const auto q = b->parameters();
    REQUIRE(p.size() == q.size());
    for (std::size_t i = 0; i < p.size(); ++i) most = std::max(most, difference(p[i], q[i]));
    return most;
}

// A rollout of `steps` steps by an untrained policy.
struct played {
    settings s;
    std::unique_ptr<control::environments> playing;
    control::agent policy;
    control::rollout r;
    std::vector<control::episode> ended;

    played(const char* name, std::int64_t n, std::int64_t steps, bool bootstrap)
        : s(with(n, steps, bootstrap)),
          playing(control::make_environments(name, n, 5)),
          policy(control::make_agent(playing->about(), 5)),
          r(s, *playing) {
        support::choices random(11);
        r.play(policy, random, ended);
        r.estimate(policy, s);
    }

    static settings with(std::int64_t n, std::int64_t steps, bool bootstrap) {
        settings s;
        s.num_envs = n;
        s.num_steps = steps;
        s.bootstrap_truncated = bootstrap;
        return s;
    }
};

// CleanRL's recursion, backwards over time; with `bootstrap`, the value of an episode's last observation where the step
// limit cut it.
Tensor advantages_by_recursion(played& p, bool bootstrap) {
    const at::NoGradGuard no_grad;
    const Tensor value = p.policy->critic->forward(p.r.observation).squeeze(-1);
    const Tensor last = p.policy->critic->forward(p.r.last_observation).squeeze(-1);
    const Tensor terminated = p.r.terminated.to(at::kFloat);
    const Tensor cut = p.r.truncated.to(at::kFloat) * (1 - terminated);
    const Tensor done = at::max(terminated, cut);
    const std::int64_t steps = p.r.reward.size(0);
    Tensor advantage = at::zeros_like(p.r.reward);
    Tensor running = at::zeros({p.r.reward.size(1)});
    for (std::int64_t t = steps - 1; t >= 0; --t) {
        Tensor next = value[t + 1] * (1 - done[t]);
        if (bootstrap) next = next + last[t] * cut[t];
        running = p.r.reward[t] + 0.99 * next - value[t] + 0.99 * 0.95 * (1 - done[t]) * running;
        advantage[t].copy_(running);
    }
    return advantage;
}

// The loss of cleanrl/ppo.py on a minibatch.
Tensor composed_loss(control::agent& a, const settings& s, const Tensor& seen, const Tensor& action,
                     const Tensor& logp_old, const Tensor& value_old, Tensor advantage, const Tensor& returns) {
    const Tensor all = a->actor->forward(seen).log_softmax(-1);
    const Tensor logp = all.gather(1, action.unsqueeze(1)).squeeze(1);
    const Tensor entropy = -(all.exp() * all).sum(-1);
    const Tensor ratio = (logp - logp_old).exp();
    if (s.norm_adv) advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8);
    const Tensor policy =
        at::max(-advantage * ratio, -advantage * ratio.clamp(1 - s.clip_coef, 1 + s.clip_coef)).mean();
    const Tensor value = a->critic->forward(seen).flatten();
    const Tensor plain = (value - returns).square();
    const Tensor kept = (value_old + (value - value_old).clamp(-s.clip_coef, s.clip_coef) - returns).square();
    const Tensor critic = 0.5 * (s.clip_vloss ? at::max(plain, kept) : plain).mean();
    return policy - s.ent_coef * entropy.mean() + critic * s.vf_coef;
}

// The initial policy is nearly uniform, where the entropy has no slope; with greater weights it has one.
void decide(control::agent& a) {
    const at::NoGradGuard no_grad;
    a->actor->last->weight.mul_(100);
}
control::agent decided_agent(const char* name, std::uint64_t seed) {
    control::agent a = control::make_agent(control::make_environments(name, 1, 0)->about(), seed);
    decide(a);
    return a;
}

// The epochs of the first update of `learner`, from its initial agent, with torch's operations.
control::agent updated_by_composition(control::ppo& learner, const char* name, const settings& s, std::uint64_t seed) {
    control::agent a = decided_agent(name, seed);
    torch::optim::Adam adam(a->parameters(), torch::optim::AdamOptions(s.learning_rate).eps(1e-5));
    support::choices shuffles(support::mixed({seed, std::uint64_t{2} << 32}));
    control::rollout& r = learner.played();
    const Tensor seen = r.observation.slice(0, 0, s.num_steps).flatten(0, 1);
    const Tensor advantage = r.advantage.flatten();
    for (std::int64_t epoch = 0; epoch < s.update_epochs; ++epoch) {
        const std::vector<std::int64_t> shuffled = shuffles.order(s.batch_size());
        for (const Tensor& i : torch::tensor(shuffled).chunk(s.num_minibatches)) {
            const auto of = [&](const Tensor& x) { return x.flatten().index({i}); };
            const Tensor loss = composed_loss(a, s, seen.index({i}), of(r.action), of(r.logp), of(r.value),
                                              advantage.index({i}), of(r.returns));
            adam.zero_grad();
            loss.backward();
            torch::nn::utils::clip_grad_norm_(a->parameters(), s.max_grad_norm);
            adam.step();
        }
    }
    return a;
}

}  // namespace

TEST_CASE("a step limit truncates, a fall terminates, and the next episode begins in the same step") {
    const auto acrobots = control::make_environments("acrobot", 2, 3);
    std::vector<float> seen(12), last(12), reward(2);
    std::vector<std::uint8_t> terminated(2), truncated(2);
    std::vector<control::episode> ended;
    acrobots->reset(seen.data());
    const std::vector<std::int64_t> no_torque{1, 1};
    for (int t = 1; t <= 500; ++t) {
        acrobots->step(no_torque.data(), {seen.data(), last.data(), reward.data(), terminated.data(), truncated.data()},
                       ended);
        CHECK(truncated[0] == (t == 500 ? 1 : 0));
        CHECK(terminated[0] == 0);
        CHECK(reward[1] == -1.0f);
    }
    REQUIRE(ended.size() == 2);
    CHECK(ended[1].length == 500);
    CHECK(ended[1].returned == -500);
    CHECK(ended[1].step == 1000);
    CHECK_FALSE(ended[1].terminated);
    for (const std::size_t i : {std::size_t{0}, std::size_t{6}}) {
        CHECK(std::abs(seen[i + 4]) <= 0.1f);  // a new start: slow, and hanging down
        CHECK(seen[i] > 0.99f);
        CHECK(last[i + 4] != seen[i + 4]);
    }

    const auto poles = control::make_environments("cartpole", 1, 3);
    ended.clear();
    poles->reset(seen.data());
    const std::int64_t left = 0;
    while (ended.empty()) {
        poles->step(&left, {seen.data(), last.data(), reward.data(), terminated.data(), truncated.data()}, ended);
    }
    CHECK(ended[0].terminated);
    CHECK(truncated[0] == 0);
    CHECK(ended[0].returned == static_cast<double>(ended[0].length));
    CHECK(ended[0].length < 15);  // pushed one way, the pole falls within a third of a second
    CHECK(std::abs(last[2]) > 0.2094f);
    CHECK(std::abs(seen[2]) <= 0.05f);
    CHECK(control::make_environments("pendulum", 1, 3) == nullptr);
}

TEST_CASE("weights are orthogonal with CleanRL's gains, and biases 0") {
    control::agent a = control::make_agent(control::acrobot::about, 9);
    const Tensor hidden = a->critic->second->weight;
    CHECK(difference(hidden.matmul(hidden.t()), 2 * at::eye(64)) < 1e-5);
    const Tensor logits = a->actor->last->weight;
    CHECK(difference(logits.matmul(logits.t()), 1e-4 * at::eye(3)) < 1e-9);
    const Tensor value = a->critic->last->weight;
    CHECK(value.norm().item<double>() == doctest::Approx(1.0));
    CHECK(a->actor->first->bias.abs().max().item<double>() == 0);
    CHECK(a->critic->first->weight.data_ptr() != a->actor->first->weight.data_ptr());
}

TEST_CASE("actions are drawn with the policy's probabilities, and their log-probabilities kept") {
    played p("acrobot", 8192, 1, false);
    {
        const at::NoGradGuard no_grad;
        p.policy->actor->last->weight.zero_();
        p.policy->actor->last->bias.copy_(torch::tensor({0.0f, 1.0f, -1.0f}));
    }
    support::choices random(4);
    p.r.play(p.policy, random, p.ended);
    p.r.estimate(p.policy, p.s);
    const double whole = 1 + std::exp(1.0) + std::exp(-1.0);
    const std::vector<double> probability{1 / whole, std::exp(1.0) / whole, std::exp(-1.0) / whole};
    for (std::int64_t k = 0; k < 3; ++k) {
        const double expected = probability[static_cast<std::size_t>(k)];
        const double share = p.r.action.eq(k).to(at::kDouble).mean().item<double>();
        CHECK(std::abs(share - expected) < 4 * std::sqrt(expected * (1 - expected) / 8192));
        const Tensor kept = p.r.logp.masked_select(p.r.action.eq(k));
        CHECK(difference(kept, at::full_like(kept, std::log(expected))) < 1e-6);
    }
}

TEST_CASE("advantages are those of CleanRL's recursion, with and without a value after the step limit") {
    // 600 steps: every acrobot of an untrained policy is cut once, in the middle.
    played plain("acrobot", 3, 600, false);
    played bootstrapped("acrobot", 3, 600, true);
    REQUIRE(plain.ended.size() == 3);
    REQUIRE(difference(plain.r.reward, bootstrapped.r.reward) == 0);
    CHECK(difference(plain.r.advantage, advantages_by_recursion(plain, false)) < 1e-4);
    CHECK(difference(bootstrapped.r.advantage, advantages_by_recursion(bootstrapped, true)) < 1e-4);
    CHECK(difference(plain.r.returns, plain.r.advantage + plain.r.value) == 0);

    // What differs is γ (γλ)^k V(last) at k steps before the cut, and nothing after it.
    const Tensor gap = bootstrapped.r.advantage - plain.r.advantage;
    CHECK(gap.slice(0, 500, 600).abs().max().item<double>() == 0);
    const at::NoGradGuard no_grad;
    const Tensor last = plain.policy->critic->forward(plain.r.last_observation[499]).squeeze(-1);
    REQUIRE(last.abs().min().item<double>() > 1e-3);
    for (const int k : {0, 1, 20}) CHECK(difference(gap[499 - k], 0.99 * std::pow(0.99 * 0.95, k) * last) < 1e-5);

    // Cut in the very last step of a rollout: what is seen next belongs to another episode.
    for (const bool bootstrap : {false, true}) {
        played whole("acrobot", 3, 500, bootstrap);
        REQUIRE(whole.ended.size() == 3);
        CHECK(difference(whole.r.advantage, advantages_by_recursion(whole, bootstrap)) < 1e-4);
    }

    // Poles fall within the 200 steps: a termination is followed by no value in either mode.
    played poles("cartpole", 4, 200, true);
    REQUIRE(poles.ended.size() > 8);
    CHECK(difference(poles.r.advantage, advantages_by_recursion(poles, true)) < 1e-4);
    CHECK(difference(poles.r.advantage, advantages_by_recursion(poles, false)) < 1e-4);
}

TEST_CASE("an update is CleanRL's: 16 minibatches against losses composed of torch's operations") {
    settings plain;
    settings changed;
    changed.norm_adv = false;
    changed.clip_vloss = false;
    changed.ent_coef = 0.2;
    changed.vf_coef = 0.1;
    changed.clip_coef = 0.01;
    changed.learning_rate = 2e-3;
    changed.max_grad_norm = 5;
    for (const settings& s : {plain, changed}) {
        for (const char* name : {"cartpole", "acrobot"}) {
            CAPTURE(name);
            control::ppo learner(name, s, 21);
            decide(learner.policy());
            control::agent before = decided_agent(name, 21);
            REQUIRE(parameter_difference(learner.policy(), before) == 0);
            learner.update();
            control::agent expected = updated_by_composition(learner, name, s, 21);
            CHECK(parameter_difference(learner.policy(), before) > 1e-3);
            CHECK(parameter_difference(learner.policy(), expected) < 2e-6);
        }
    }
}

TEST_CASE("the learning rate falls linearly, and the last update still has one") {
    settings s;
    s.total_timesteps = 4 * s.batch_size() + 100;  // the rest of 100 steps is not played
    control::ppo learner("cartpole", s, 1);
    for (const double share : {1.0, 0.75, 0.5, 0.25}) {
        REQUIRE_FALSE(learner.finished());
        CHECK(learner.update().learning_rate == doctest::Approx(share * 2.5e-4));
    }
    CHECK(learner.finished());
    CHECK(learner.steps() == 2048);
    s.anneal_lr = false;
    control::ppo constant("cartpole", s, 1);
    constant.update();
    CHECK(constant.update().learning_rate == 2.5e-4);
}

TEST_CASE("a KL above the target ends the epochs of an update") {
    settings s;
    s.learning_rate = 1e-2;
    control::ppo all("cartpole", s, 2);
    s.target_kl = 1e-6;
    control::ppo stopped("cartpole", s, 2);
    all.update();
    stopped.update();
    s.target_kl.reset();
    s.update_epochs = 1;
    control::ppo one_epoch("cartpole", s, 2);
    one_epoch.update();
    CHECK(parameter_difference(stopped.policy(), one_epoch.policy()) == 0);
    CHECK(parameter_difference(stopped.policy(), all.policy()) > 1e-4);
}

TEST_CASE("a short run of a fixed seed improves, and the same seed gives the same numbers") {
    settings s;
    s.total_timesteps = 40 * s.batch_size();
    for (const bool bootstrap : {false, true}) {
        s.bootstrap_truncated = bootstrap;
        control::ppo learner("cartpole", s, 1);
        control::ppo again("cartpole", s, 1);
        double first = 0;
        while (!learner.finished()) {
            const auto report = learner.update();
            CHECK(again.update().loss == report.loss);
            if (learner.updates() == 2) first = control::recent_return(learner.episodes());
        }
        CHECK(first < 40);  // a random policy holds the pole for 20 steps or so
        CHECK(control::recent_return(learner.episodes()) > 3 * first);
        CHECK(parameter_difference(learner.policy(), again.policy()) == 0);
        control::ppo other("cartpole", s, 2);
        other.update();
        CHECK(parameter_difference(learner.policy(), other.policy()) > 0);
    }
}

TEST_CASE("a score is the mean return of the last 100 episodes") {
    std::vector<control::episode> all;
    CHECK(std::isnan(control::recent_return(all)));
    for (int i = 1; i <= 150; ++i) all.push_back({i, static_cast<double>(i), 1, true});
    CHECK(control::recent_return(all) == doctest::Approx(100.5));  // 51 to 150
    all.resize(3);
    CHECK(control::recent_return(all) == doctest::Approx(2.0));
}

TEST_CASE("options that do not go together are one sentence") {
    settings s;
    s.num_minibatches = 5;
    CHECK_THROWS_WITH_AS(s.validate(),
                         "--num-minibatches is 5, but must divide --num-envs times --num-steps, 512 transitions",
                         support::bad_input);
    s = {};
    s.total_timesteps = 511;
    CHECK_THROWS_WITH_AS(s.validate(), "--steps is 511, but one update plays --num-envs times --num-steps, 512",
                         support::bad_input);
}
