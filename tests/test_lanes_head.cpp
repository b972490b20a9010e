// The bodies of the head on a block of threads, and as a device walks them, on packs: serial's results, and no data race (run
// under ThreadSanitizer).
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/elsewhere.hpp>
#include <support/head_loss_cases.hpp>
#include <support/lanes.hpp>
#include <support/sentence.hpp>
#include <support/vectors.hpp>

namespace {

using head_loss_cases::world;

template <class T>
world<T, T> rows(std::int64_t vocabulary = 37, std::int64_t stride = 39) {
    return world<double>({3, 0, 7, 1}, vocabulary, stride, 14, 0.7).template as<T, T>();
}

template <class T>
struct outputs {
    std::vector<T> logp, entropy, squares, kl, gradient, from_saved, of_kl;
    std::vector<double> lse;
};
template <class Exec, class T>
outputs<T> measure(const Exec& exec, const world<T, T>& w) {
    const std::vector<T> one(w.a.tokens(), T(9)), all(w.z.size(), T(9));
    outputs<T> o{one, one, one, one, all, all, all, std::vector<double>(w.a.tokens(), 9.0)};
    const auto in = w.logits().where(w.a.mask);
    grpo::token_logp(exec, in, w.target, w.options,
                     grpo::softmax_outputs<T>{grpo::view(o.logp), grpo::view(o.entropy), grpo::view(o.squares),
                                              grpo::view(o.lse)});
    const grpo::view<const T> slope(o.logp), of_entropy(o.entropy);
    grpo::d_logits(exec, in, w.target, w.options, slope, of_entropy, grpo::view(o.gradient));
    grpo::d_logits(exec, in, w.target, w.options, slope, grpo::view<const T>{}, grpo::view(o.from_saved),
                   {.lse = grpo::view<const double>(o.lse)});
    grpo::full_kl(exec, in, w.reference(), w.options, grpo::view(o.kl), slope, grpo::view(o.of_kl));
    return o;
}
template <class Exec, class T>
void check_rows(const Exec& exec, const world<T, T>& w, double tolerance) {
    const auto serial = measure(grpo::serial{}, w), block = measure(exec, w);
    CHECK(vectors::difference(block.logp, serial.logp, tolerance) == "");
    CHECK(vectors::difference(block.entropy, serial.entropy, tolerance) == "");
    CHECK(vectors::difference(block.squares, serial.squares, tolerance) == "");
    CHECK(vectors::difference(block.lse, serial.lse, tolerance) == "");
    CHECK(vectors::difference(block.kl, serial.kl, tolerance) == "");
    CHECK(vectors::difference(block.gradient, serial.gradient, tolerance) == "");
    CHECK(vectors::difference(block.from_saved, serial.from_saved, tolerance) == "");
    CHECK(vectors::difference(block.of_kl, serial.of_kl, tolerance) == "");
}
TEST_CASE("log-probability, entropy, full KL and their gradients on a block of lanes are serial's") {
    check_rows(lanes<4>{}, rows<double>(), 1e-13);
    check_rows(elsewhere<4>{}, rows<double>(), 1e-13);
    check_rows(elsewhere<4>{}, rows<float>(), 2e-6);
    check_rows(elsewhere<4>{}, rows<float>(5, 5), 2e-6);  // less than a pack
    check_rows(elsewhere<4>{}, head_loss_cases::padded(rows<float>(163, 163), 150), 2e-6);
}

template <class Exec, class T, class Term>
void check_loss(const Exec& exec, const world<T, T>& w, const Term& term, double tolerance) {
    const grpo::objective loss{term, grpo::aggregation::token_mean()};
    const auto serial = head_loss_cases::evaluate<T>(grpo::serial{}, loss, w);
    const auto block = head_loss_cases::evaluate<T>(exec, loss, w);
    CHECK(vectors::close(block.result.sum, serial.result.sum, tolerance));
    CHECK(vectors::difference(block.logp, serial.logp, tolerance) == "");
    CHECK(vectors::difference(block.gradient, serial.gradient, tolerance) == "");
    auto place = w;
    CHECK(vectors::close(head_loss_cases::evaluate_in_place(exec, loss, place).sum, serial.result.sum, tolerance));
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        for (std::int64_t c = 0; c < w.vocabulary; ++c) {
            if (!vectors::close(place.z[w.place(i, c)], serial.gradient[w.place(i, c)], tolerance)) FAIL_CHECK(i, " ", c);
        }
    }
}
template <class Term>
void check(const Term& term) {
    check_loss(lanes<4>{}, rows<double>(), term, 1e-13);
    check_loss(elsewhere<4>{}, rows<double>(), term, 1e-13);
    check_loss(elsewhere<4>{}, rows<float>(), term, 2e-6);
    check_loss(elsewhere<4>{}, head_loss_cases::padded(rows<float>(163, 163), 150), term, 2e-6);
}
TEST_CASE("a loss from logits on a block of lanes is serial's, in place too") {
    check(grpo::clipped{} + 0.04 * grpo::kl{});
    check(grpo::clipped{} + 0.3 * grpo::exact_kl{} + 0.01 * grpo::entropy_bonus{});
    check(grpo::gspo{.low = 0.1, .high = 0.1});
}

TEST_CASE("a target far below its row's greatest logit: sums that overflow are walked again") {
    auto w = rows<float>();
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        const auto target = w.target[static_cast<std::size_t>(i)];
        w.z[w.place(i, target)] = -200;
        w.z[w.place(i, (target + 1) % 37)] = 300;
    }
    check_loss(elsewhere<4>{}, w, grpo::reinforce{}, 2e-6);
}

TEST_CASE("in another memory, a target outside the vocabulary has the log-probability -inf and nothing is written for it") {
    auto w = rows<float>();
    w.a.mask.assign(w.a.tokens(), 1);
    const grpo::objective loss{grpo::reinforce{}, grpo::aggregation::token_mean()};
    const auto regular = head_loss_cases::evaluate<float>(elsewhere<4>{}, loss, w);
    for (const std::int32_t wrong : {1000000, -7}) {
        w.target[2] = wrong;
        CHECK(measure(elsewhere<4>{}, w).logp[2] == -INFINITY);
        const auto o = head_loss_cases::evaluate<float>(elsewhere<4>{}, loss, w);
        CHECK(o.logp[2] == -INFINITY);
        CHECK(o.result.nonfinite == 1);
        // Every other token as before, every gap untouched.
        for (std::size_t k = 0; k < o.gradient.size(); ++k) {
            if (k / 39 != 2 && !(o.gradient[k] == regular.gradient[k])) FAIL_CHECK(k);
        }
    }
}

TEST_CASE("errors of the head in another memory, with nothing written") {
    const auto w = rows<float>();
    elsewhere<4> there;
    const std::string host = " points into host memory, but device 0 is to read or write it";
    std::vector<float> gradient(w.z.size(), 7.0f), logp(w.a.tokens(), 7.0f);
    std::vector<std::byte> memory(
        static_cast<std::size_t>(grpo::evaluate_logits_workspace(there.size(), w.rows(), w.vocabulary)));
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    grpo::head_options options = w.options;
    const std::vector<float> bias(37, 0.0f);
    options.bias = grpo::view(bias);
    const auto evaluate = [&](const auto& batch, const auto& targets) {
        (void)grpo::evaluate_logits(there, loss, w.logits(), targets, options, batch, 11.0, grpo::view(gradient),
                                    grpo::view(memory));
    };
    const auto of_loss = [&](const void* forbidden) {
        there.forbidden = forbidden;
        return errors::sentence([&] { evaluate(w.batch(), w.target); });
    };
    CHECK(of_loss(w.z.data()) == "grpo::evaluate_logits: logits" + host);
    CHECK(of_loss(w.target.data()) == "grpo::evaluate_logits: targets" + host);
    CHECK(of_loss(bias.data()) == "grpo::evaluate_logits: bias" + host);
    CHECK(of_loss(w.a.logp_old.data()) == "grpo::evaluate_logits: logp_old" + host);
    CHECK(of_loss(w.a.advantage.data()) == "grpo::evaluate_logits: advantage" + host);
    CHECK(of_loss(w.a.mask.data()) == "grpo::evaluate_logits: mask" + host);
    CHECK(of_loss(w.a.cu.data()) == "grpo::evaluate_logits: cu_seqlens" + host);
    CHECK(of_loss(gradient.data()) == "grpo::evaluate_logits: gradient" + host);
    there.forbidden = nullptr;
    const auto unknown = grpo::batch(grpo::ragged(w.a.cu), grpo::logp_old(w.a.logp_old), grpo::advantage(w.a.advantage));
    CHECK(errors::sentence([&] { evaluate(unknown, w.target); }) ==
          "grpo::evaluate_logits: cu_seqlens has 5 entries in a device's memory: give ragged() their last as well");
    CHECK(errors::sentence([&] { evaluate(w.batch(), std::vector<std::int32_t>(3)); }) ==
          "grpo::evaluate_logits: targets has 3 entries, but the batch has 11 tokens");
    const auto of_rows = [&](const void* forbidden) {
        there.forbidden = forbidden;
        const auto in = w.logits().where(w.a.mask);
        return errors::sentence([&] { grpo::token_logp(there, in, w.target, options, grpo::view(logp)); }) + errors::sentence([&] {
                   grpo::full_kl(there, in, w.reference(), options, grpo::view(logp));
               });
    };
    CHECK(of_rows(w.a.mask.data()) == "grpo::token_logp: mask" + host + "grpo::full_kl: mask" + host);
    CHECK(of_rows(bias.data()) == "grpo::token_logp: bias" + host + "grpo::full_kl: bias" + host);
    CHECK(of_rows(w.ref.data()) == "grpo::full_kl: logits_ref" + host);
    CHECK(gradient == std::vector<float>(w.z.size(), 7.0f));
}

}  // namespace
