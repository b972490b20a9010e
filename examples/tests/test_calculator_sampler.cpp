// The sampler, with its kept keys and values, against the model that is trained: the same probabilities.
#include <cstdint>
#include <span>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <torch/library.h>

#include <nlohmann/json.hpp>

#include "calculator/generate.hpp"
#include "calculator/sample.hpp"

using namespace calculator;

namespace {

// Weights as after training: none of them 0, in no table either.
transformer shaken(std::int64_t context) {
    torch::manual_seed(5);
    transformer model({.layers = 2, .heads = 4, .width = 32, .context = context});
    const torch::NoGradGuard off;
    for (at::Tensor& w : model.parameters()) w.add_(0.2 * torch::randn_like(w));
    return model;
}

// log p of each token of a response by the whole sequence at once, without a batch around it.
at::Tensor whole(transformer& model, const problem& p, const response& r, double temperature) {
    const torch::NoGradGuard off;
    auto ids = vocabulary::encode(p.prompt);
    const auto first = static_cast<std::int64_t>(ids.size()) - 1;
    ids.insert(ids.end(), r.tokens.begin(), r.tokens.end());
    const at::Tensor input = torch::tensor(ids, torch::kLong).unsqueeze(0);
    const at::Tensor logits = model.head->forward(model.states(input))[0] / temperature;
    const auto count = static_cast<std::int64_t>(r.tokens.size());
    return logits.log_softmax(-1).narrow(0, first, count).gather(1, torch::tensor(r.tokens, torch::kLong).unsqueeze(1));
}

}  // namespace

TEST_CASE("log-probabilities of sampled tokens are the trained model's, whatever else is in the batch") {
    const generated source;
    const auto problems = source.train(1, 0, 60);
    const std::int64_t longest = 20;
    transformer model = shaken(source.longest_prompt() + longest + 7);
    workers crew(1);
    for (const double temperature : {1.0, 0.7}) {
        // Alone, a few, and many, so that short prompts stand beside short and beside long ones.
        for (const std::size_t count : std::vector<std::size_t>{1, 7, 60}) {
            const auto asked = std::span(problems).first(count);
            const auto made = sample(model, asked, 3, {.temperature = temperature, .longest = longest, .key = 9}, crew);
            REQUIRE(made.size() == 3 * count);
            for (std::size_t i = 0; i < made.size(); ++i) {
                REQUIRE(made[i].logp.size() == made[i].tokens.size());
                const at::Tensor expected = whole(model, asked[i / 3], made[i], temperature);
                for (std::size_t t = 0; t < made[i].logp.size(); ++t) {
                    const double trained = expected[static_cast<std::int64_t>(t)].item<double>();
                    REQUIRE(static_cast<double>(made[i].logp[t]) == doctest::Approx(trained).epsilon(1e-5));
                }
            }
        }
    }
}

TEST_CASE("a greedy answer does not depend on what else is asked") {
    const generated source;
    const auto problems = source.train(2, 0, 40);
    transformer model = shaken(source.longest_prompt() + 27);
    workers crew(2);
    const sampling greedy{.temperature = 0, .longest = 20};
    const auto together = sample(model, problems, 1, greedy, crew);
    for (std::size_t i = 0; i < problems.size(); ++i)
        REQUIRE(sample(model, std::span(problems).subspan(i, 1), 1, greedy, crew)[0].tokens == together[i].tokens);
}
