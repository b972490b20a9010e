// A user's mistakes with logits are sentences, and nothing is written.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>
#include <grpo/head.hpp>

#include <support/sentence.hpp>

namespace {

// Two sequences of two tokens over three columns, whose last token is masked and has a target of -100.
struct world {
    std::vector<float> z = std::vector<float>(12, 0.25f), ref = z, old = std::vector<float>(4, -1.0f), advantage = {1, -1};
    std::vector<std::uint8_t> mask{1, 1, 1, 0};
    std::vector<int> target{0, 1, 2, -100};
    std::vector<float> gradient = std::vector<float>(12, 9.0f), logp = std::vector<float>(4, 9.0f);
    std::int64_t rows = 4, vocabulary = 3, workspace = 1 << 12, columns_ref = 3, rows_ref = 4;
    double denominator = 4;
    grpo::head_options options = {};

    // The sentence of evaluate_logits(); "no error" if it succeeds.
    std::string evaluate() {
        std::vector<std::byte> memory(static_cast<std::size_t>(workspace));
        const auto term = grpo::clipped{} + 0.1 * grpo::exact_kl{};
        const std::string text = errors::sentence([&] {
            (void)grpo::evaluate_logits(
                grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()}, grpo::logits(z, rows, vocabulary),
                target, options,
                grpo::batch(grpo::padded(2, 2).where(mask), grpo::logp_old(old),
                            grpo::advantage(grpo::by_sequence(advantage))),
                denominator, grpo::view(gradient), grpo::view(memory), {.logp = grpo::view(logp)},
                grpo::logits(ref, rows_ref, columns_ref));
        }, "no error");
        if (text != "no error") {
            for (const float g : gradient) CHECK(g == 9.0f);
            for (const float l : logp) CHECK(l == 9.0f);
            for (const std::byte b : memory) CHECK(b == std::byte{0});
        }
        return text;
    }
};

template <class Change>
void expect(Change&& change, const char* sentence) {
    world w;
    change(w);
    CHECK(w.evaluate() == "grpo::evaluate_logits: " + std::string(sentence));
}

TEST_CASE("sizes that do not fit a loss from logits") {
    CHECK(world().evaluate() == "no error");
    expect([&](world& w) { w.workspace = 511; }, "workspace has 511 bytes, but 512 are needed");
    expect([&](world& w) { w.rows = 3; w.z.resize(9); }, "logits has 3 entries, but the batch has 4 positions");
    expect([&](world& w) { w.z.resize(11); }, "logits has 11 entries, but the batch has 12 positions");
    expect([&](world& w) { w.gradient.resize(11); }, "gradient has 11 entries, but the batch has 12 positions");
    expect([&](world& w) { w.logp.resize(3); }, "logp has 3 entries, but the batch has 4 tokens");
    expect([&](world& w) { w.target.resize(3); }, "targets has 3 entries, but the batch has 4 tokens");
    expect([&](world& w) { w.rows_ref = 3; w.ref.resize(9); }, "logits_ref's rows has 3 entries, but the batch has 4 tokens");
    expect([&](world& w) { w.columns_ref = 2; w.ref.resize(8); }, "logits_ref's vocabulary has 2 entries, but the batch has 3 logits a token");
    expect([&](world& w) { w.old.resize(3); }, "logp_old has 3 entries, but the batch has 4 positions");
}

TEST_CASE("values out of range in a loss from logits") {
    expect([&](world& w) { w.target[1] = 3; }, "targets has 3 at token 1, but the vocabulary has 3 entries");
    expect([&](world& w) { w.target[1] = -1; }, "targets has -1 at token 1, but the vocabulary has 3 entries");
    expect([&](world& w) { w.options.temperature = 0; }, "temperature is 0, but must be above 0");
    expect([&](world& w) { w.options.scale = -1; }, "scale is -1, but must be above 0");
    expect([&](world& w) { w.options.softcap = -2; }, "softcap is -2, but must be at least 0");
    expect([&](world& w) { w.options.vocabulary = 4; }, "options.vocabulary is 4, but the logits have 3 columns");
    expect([&](world& w) { w.options.vocabulary = 2; }, "targets has 2 at token 2, but the vocabulary has 2 entries");
    expect([&](world& w) { w.options.first_token = -1; }, "first_token is -1, but must be at least 0");
    const std::vector<float> bias(2);
    expect([&](world& w) { w.options.bias = grpo::view<const float>(bias); }, "bias has 2 entries, but the batch has 3 columns");
    expect([&](world& w) { w.denominator = -1; }, "denominator is -1, but must be finite and at least 0");
}

TEST_CASE("sizes that do not fit log-probabilities and gradients of logits") {
    const world w;
    std::vector<float> few(3, 9.0f), four(4, 9.0f), gradient(12, 9.0f);
    std::vector<double> lse(3, 9.0);
    const std::vector<double> known(3);
    const auto in = grpo::logits(w.z, 4, 3);
    const std::vector<int> target{0, 1, 2, 0};
    const auto forward = [&](const grpo::softmax_outputs<float>& out) {
        return errors::sentence([&] { grpo::token_logp(grpo::serial{}, in, target, {}, out); });
    };
    CHECK(forward({.logp = grpo::view(few)}) == "grpo::token_logp: logp has 3 entries, but the batch has 4 tokens");
    CHECK(forward({.entropy = grpo::view(few)}) == "grpo::token_logp: entropy has 3 entries, but the batch has 4 tokens");
    CHECK(forward({.sum_squares = grpo::view(few)}) ==
          "grpo::token_logp: sum_squares has 3 entries, but the batch has 4 tokens");
    CHECK(forward({.logp = grpo::view(four), .lse = grpo::view(lse)}) ==
          "grpo::token_logp: lse has 3 entries, but the batch has 4 tokens");
    const auto backward = [&](std::vector<float>& g, std::vector<float>& h, std::vector<float>& out,
                              const grpo::softmax_saved& saved = {}) {
        return errors::sentence([&] {
            grpo::d_logits(grpo::serial{}, in, target, {}, grpo::view<const float>(g), grpo::view<const float>(h),
                           grpo::view(out), saved);
        });
    };
    CHECK(backward(few, four, gradient) == "grpo::d_logits: d_logp has 3 entries, but the batch has 4 tokens");
    CHECK(backward(four, few, gradient) == "grpo::d_logits: d_entropy has 3 entries, but the batch has 4 tokens");
    CHECK(backward(four, four, four) == "grpo::d_logits: gradient has 4 entries, but the batch has 12 positions");
    CHECK(backward(four, four, gradient, {.lse = grpo::view<const double>(known)}) ==
          "grpo::d_logits: saved.lse has 3 entries, but the batch has 4 tokens");
    CHECK(backward(four, four, gradient, {.entropy = grpo::view<const double>(known)}) ==
          "grpo::d_logits: saved.entropy has 3 entries, but the batch has 4 tokens");
    CHECK(errors::sentence([&] { (void)in.where(std::vector<std::uint8_t>(3)); }) ==
          "grpo::logits: mask has 3 entries, but the batch has 4 tokens");
    for (const float x : few) CHECK(x == 9.0f);
    for (const float x : four) CHECK(x == 9.0f);
    for (const float x : gradient) CHECK(x == 9.0f);
    for (const double x : lse) CHECK(x == 9.0);
}

}  // namespace
