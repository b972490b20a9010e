// From hidden states to the loss and the gradients, against products written out in double and the head over whole logits.
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <grpo/grpo.hpp>

#include <support/elsewhere.hpp>
#include <support/random_batch.hpp>
#include <support/rounding_gemm.hpp>
#include <support/sentence.hpp>

namespace {

const double nan_value = std::numeric_limits<double>::quiet_NaN();

// Three sequences of 4, 0 and 7 tokens, some of them masked: their hidden states are NaN and their targets no tokens.
template <class T>
struct world {
    static constexpr std::int64_t tokens = 11, vocabulary = 37, width = 5;
    std::vector<std::int64_t> cu{0, 4, 4, 11};
    std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0};
    std::vector<std::int64_t> target;
    std::vector<T> hidden, weight;
    std::vector<float> bias;
    std::vector<double> logp_old, advantage{0.7, 1.0, -0.4};

    explicit world(unsigned seed) {
        std::mt19937 rng(seed);
        std::normal_distribution<float> normal(0.0f, 1.0f);
        for (std::int64_t i = 0; i < tokens; ++i) {
            const bool counts = mask[static_cast<std::size_t>(i)] != 0;
            target.push_back(counts ? (i * 11) % vocabulary : -100);
            logp_old.push_back(-3.0 + static_cast<double>(normal(rng)));
            for (std::int64_t k = 0; k < width; ++k) hidden.push_back(counts ? T(normal(rng)) : T(std::nanf("")));
        }
        for (std::int64_t i = 0; i < vocabulary * width; ++i) weight.push_back(T(normal(rng)));
        for (std::int64_t i = 0; i < vocabulary; ++i) bias.push_back(normal(rng));
    }
    auto shape() const { return grpo::ragged(grpo::view<const std::int64_t>(cu), tokens).where(mask); }
    auto batch() const {
        return grpo::batch(shape(), grpo::logp_old(logp_old), grpo::advantage(grpo::by_sequence(advantage)));
    }
    auto head() const { return grpo::linear(hidden, weight, tokens, vocabulary, width); }
    std::vector<double> logits() const {
        std::vector<double> z;
        for (std::size_t i = 0; i < static_cast<std::size_t>(tokens); ++i) {
            for (std::size_t v = 0; v < static_cast<std::size_t>(vocabulary); ++v) {
                double sum = 0;
                for (std::size_t k = 0; k < 5; ++k) {
                    sum += static_cast<double>(hidden[i * 5 + k]) * static_cast<double>(weight[v * 5 + k]);
                }
                z.push_back(sum);
            }
        }
        return z;
    }
};

struct gradients {
    double loss = 0;
    std::vector<double> hidden, weight, bias;
};

// The loss over whole logits, then its gradient through the products.
template <class World, class Loss>
gradients expected(const World& w, const Loss& loss, const grpo::head_options& options, double denominator,
                   const std::vector<double>& reference = {}, bool rounded = false) {
    const std::int64_t n = World::tokens, v_all = World::vocabulary, h = World::width;
    std::vector<double> z = w.logits();
    for (double& x : z) x = rounded ? static_cast<double>(grpo::bfloat16(static_cast<float>(x))) : x;
    std::vector<double> d(z.size());
    std::vector<std::byte> work(static_cast<std::size_t>(grpo::evaluate_logits_workspace(1, n, v_all)));
    gradients out;
    out.loss = grpo::evaluate_logits(grpo::serial{}, loss, grpo::logits(z, n, v_all), w.target, options, w.batch(),
                                     denominator, grpo::view(d), grpo::view(work), {},
                                     reference.empty() ? grpo::logits_view<double>{} : grpo::logits(reference, n, v_all))
                   .loss(denominator);
    out.hidden.assign(static_cast<std::size_t>(n * h), 0.0);
    out.weight.assign(static_cast<std::size_t>(v_all * h), 0.0);
    out.bias.assign(static_cast<std::size_t>(v_all), 0.0);
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        if (w.mask[i] == 0) continue;
        for (std::size_t v = 0; v < static_cast<std::size_t>(v_all); ++v) {
            const double g = d[i * static_cast<std::size_t>(v_all) + v];
            out.bias[v] += g;
            for (std::size_t k = 0; k < 5; ++k) {
                out.hidden[i * 5 + k] += g * static_cast<double>(w.weight[v * 5 + k]);
                out.weight[v * 5 + k] += g * static_cast<double>(w.hidden[i * 5 + k]);
            }
        }
    }
    return out;
}

template <class G>
void close(const std::vector<G>& got, const std::vector<double>& want, double tolerance) {
    REQUIRE(got.size() == want.size());
    double scale = 0;
    for (const double x : want) scale = std::fmax(scale, std::abs(x));
    for (std::size_t i = 0; i < want.size(); ++i) {
        INFO(i);
        CHECK(std::abs(static_cast<double>(got[i]) - want[i]) <= tolerance * scale);
    }
}

template <class T, class Loss, class Exec = grpo::serial>
void check(const Loss& loss, double tolerance, const grpo::head_options& options, std::int64_t chunk, const Exec& exec = {}) {
    using G = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const world<T> w(5);
    const double n = loss.over.denominator(grpo::count(w.shape()));
    const gradients want = expected(w, loss, options, n);
    std::vector<G> hidden(w.hidden.size(), static_cast<G>(nan_value)), weight(w.weight.size(), G(0)), bias(37, G(0));
    std::vector<std::byte> work(static_cast<std::size_t>(grpo::evaluate_hidden_workspace(exec.size(), w.head(), chunk)));
    const auto r = random_batch::arrived(
        grpo::evaluate_hidden(exec, grpo::plain_gemm{}, loss, w.head(), w.target, options, w.batch(), n,
                              {.hidden = hidden, .weight = weight, .bias = bias}, grpo::view(work)));
    CHECK(r.loss(n) == doctest::Approx(want.loss).epsilon(tolerance));
    close(hidden, want.hidden, tolerance);
    close(weight, want.weight, tolerance);
    close(bias, want.bias, tolerance);
    for (std::size_t i = 0; i < hidden.size(); ++i) {
        if (w.mask[i / 5] == 0) CHECK((hidden[i] == G(0) && !std::signbit(hidden[i])));
    }
}

// Logits of bfloat16, kept as such.
template <class Loss, class Exec>
void check_rounded(const Loss& loss, std::int64_t chunk, const Exec& exec) {
    const world<grpo::bfloat16> w(5);
    const double n = loss.over.denominator(grpo::count(w.shape()));
    const grpo::head_options options{.temperature = 0.8, .bias = w.bias};
    const gradients want = expected(w, loss, options, n, {}, true);
    const auto head = grpo::rounded_logits(w.head());
    std::vector<float> hidden(w.hidden.size(), 7.0f), weight(w.weight.size(), 0.0f), bias(37, 0.0f);
    std::vector<std::byte> work(static_cast<std::size_t>(grpo::evaluate_hidden_workspace(exec.size(), head, chunk)));
    const auto r = random_batch::arrived(grpo::evaluate_hidden(exec, rounding_gemm{}, loss, head, w.target, options, w.batch(), n,
                                                               {.hidden = hidden, .weight = weight, .bias = bias}, grpo::view(work)));
    CHECK(r.loss(n) == doctest::Approx(want.loss).epsilon(1e-6));
    close(hidden, want.hidden, 1.0 / 128);
    close(weight, want.weight, 1.0 / 128);
    close(bias, want.bias, 1.0 / 128);
}

const auto clipped = grpo::objective{grpo::clipped{.low = 0.9, .high = 9.0}, grpo::aggregation::sequence_mean()};

}  // namespace

TEST_CASE("rounded logits: the loss of logits of 16 bits, and its gradients") {
    const auto in_two_sweeps = grpo::objective{grpo::gspo{.low = 0.9, .high = 9.0}, grpo::aggregation::sequence_mean()};
    for (const std::int64_t chunk : {1, 3, 11}) {
        check_rounded(clipped, chunk, grpo::serial{});
        check_rounded(in_two_sweeps, chunk, grpo::serial{});
        check_rounded(clipped, chunk, elsewhere<2>{});
    }
    const world<grpo::bfloat16> w(5);
    CHECK(std::abs(expected(w, clipped, {}, 1, {}, true).loss - expected(w, clipped, {}, 1).loss) > 1e-5);
}

TEST_CASE("R1.12 the loss and its gradients from hidden states, for chunks of any size; masked ones hold NaN") {
    for (const std::int64_t chunk : {1, 2, 3, 7, 100}) {
        INFO(chunk);
        check<double>(clipped, 1e-12, {.temperature = 0.7}, chunk);
    }
    check<float>(clipped, 2e-6, {.temperature = 0.7}, 4);
    check<grpo::bfloat16>(clipped, 1e-2, {.temperature = 0.7}, 4);
}

TEST_CASE("hidden states in another memory: chunks of consecutive tokens, those that do not count as zeros") {
    for (const std::int64_t chunk : {1, 3, 100}) {
        INFO(chunk);
        check<double>(clipped, 1e-12, {.temperature = 0.7}, chunk, elsewhere<4>());
        check<double>(grpo::objective{grpo::gspo{}, grpo::aggregation::token_mean()}, 1e-12, {}, chunk, elsewhere<4>());
    }
    check<float>(clipped, 2e-6, {.temperature = 0.7}, 4, elsewhere<4>());
}

TEST_CASE("R1.32 bias, scale and softcap of a linear head") {
    const world<double> w(5);
    check<double>(clipped, 1e-12, {.temperature = 1.3, .scale = 0.6, .softcap = 4.0, .bias = w.bias}, 3);
}

TEST_CASE("a term that couples the tokens of a sequence, from hidden states") {
    check<double>(grpo::objective{grpo::gspo{.low = 0.9, .high = 9.0}, grpo::aggregation::sequence_mean()}, 1e-12, {}, 3);
}

TEST_CASE("entropy and the exact KL to another linear head, of another width") {
    const world<double> w(5);
    const auto loss = grpo::objective{grpo::clipped{.high = 9.0} + 0.05 * grpo::entropy_bonus{} + 0.3 * grpo::exact_kl{},
                                      grpo::aggregation::token_mean()};
    std::mt19937 rng(9);
    std::normal_distribution<double> normal(0.0, 1.0);
    std::vector<double> hidden_ref(11 * 2), weight_ref(37 * 2), z_ref;
    for (double& x : hidden_ref) x = normal(rng);
    for (double& x : weight_ref) x = normal(rng);
    for (std::size_t i = 0; i < 11; ++i) {
        for (std::size_t v = 0; v < 37; ++v) {
            z_ref.push_back(hidden_ref[2 * i] * weight_ref[2 * v] + hidden_ref[2 * i + 1] * weight_ref[2 * v + 1]);
        }
    }
    const double n = loss.over.denominator(grpo::count(w.shape()));
    const gradients want = expected(w, loss, {.temperature = 0.8}, n, z_ref);
    const auto reference = grpo::linear(hidden_ref, weight_ref, 11, 37, 2);
    std::vector<double> hidden(w.hidden.size()), weight(w.weight.size()), kl(11, 9.0);
    std::vector<std::byte> work(static_cast<std::size_t>(grpo::evaluate_hidden_workspace(1, w.head(), 3, 2)));
    const auto r = grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, loss, w.head(), w.target, {.temperature = 0.8},
                                         w.batch(), n, {.hidden = hidden, .weight = weight}, grpo::view(work),
                                         {.full_kl = kl}, reference);
    CHECK(r.loss(n) == doctest::Approx(want.loss).epsilon(1e-12));
    close(hidden, want.hidden, 1e-12);
    close(weight, want.weight, 1e-12);
    CHECK(kl[0] > 0.0);
    CHECK(kl[1] == 0.0);  // masked
}

TEST_CASE("a reference of another storage type and much wider, in a workspace of exactly the size") {
    const world<grpo::bfloat16> w(5);
    const auto loss = grpo::objective{0.3 * grpo::exact_kl{}, grpo::aggregation::token_mean()};
    std::mt19937 rng(9);
    std::normal_distribution<float> normal(0.0f, 0.1f);
    std::vector<float> hidden_ref(11 * 200), weight_ref(37 * 200);
    for (float& x : hidden_ref) x = normal(rng);
    for (float& x : weight_ref) x = normal(rng);
    std::vector<double> z = w.logits(), z_ref, kl(11);
    for (std::size_t i = 0; i < 11; ++i) {
        for (std::size_t v = 0; v < 37; ++v) {
            double sum = 0;
            for (std::size_t k = 0; k < 200; ++k) {
                sum += static_cast<double>(hidden_ref[i * 200 + k]) * static_cast<double>(weight_ref[v * 200 + k]);
            }
            z_ref.push_back(sum);
        }
    }
    grpo::full_kl(grpo::serial{}, grpo::logits(z, 11, 37).where(w.mask), grpo::logits(z_ref, 11, 37), {}, grpo::view(kl));
    std::vector<double> got(11, 9.0);
    std::vector<float> weight(w.weight.size());
    std::vector<std::byte> work(static_cast<std::size_t>(grpo::evaluate_hidden_workspace(1, w.head(), 3, 200)));
    (void)grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, loss, w.head(), w.target, {}, w.batch(), 1.0,
                                {.weight = weight}, grpo::view(work), {.full_kl = got},
                                grpo::linear(hidden_ref, weight_ref, 11, 37, 200));
    for (std::size_t i = 0; i < 11; ++i) CHECK(got[i] == doctest::Approx(kl[i]).epsilon(1e-5));
}

TEST_CASE("the gradient of the weight is added to what is there; the loss alone needs no gradient") {
    const world<double> w(5);
    const double n = clipped.over.denominator(grpo::count(w.shape()));
    const gradients want = expected(w, clipped, {}, n);
    std::vector<double> weight(w.weight.size(), 2.0), logp(11, 9.0);
    std::vector<std::byte> work(static_cast<std::size_t>(grpo::evaluate_hidden_workspace(1, w.head(), 4)));
    for (int call = 0; call < 2; ++call) {
        (void)grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, clipped, w.head(), w.target, {}, w.batch(), n,
                                    {.weight = weight}, grpo::view(work));
    }
    for (std::size_t i = 0; i < weight.size(); ++i) CHECK(weight[i] == doctest::Approx(2.0 + 2.0 * want.weight[i]));
    const auto r = grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, clipped, w.head(), w.target, {}, w.batch(), n, {},
                                         grpo::view(work), {.logp = logp});
    CHECK(r.loss(n) == doctest::Approx(want.loss).epsilon(1e-12));
    std::vector<double> z = w.logits(), all(11);
    grpo::token_logp(grpo::serial{}, grpo::logits(z, 11, 37).where(w.mask), w.target, {}, grpo::view(all));
    for (std::size_t i = 0; i < 11; ++i) CHECK(logp[i] == doctest::Approx(all[i]).epsilon(1e-12));
}

TEST_CASE("mistakes with hidden states are sentences, and nothing is written") {
    const world<double> w(5);
    std::vector<double> hidden(w.hidden.size(), 7.0), few(3);
    const std::int64_t least = grpo::evaluate_hidden_workspace(1, w.head(), 1);
    std::vector<std::byte> work(static_cast<std::size_t>(least));
    const auto message = [](auto&& call) { return errors::sentence(call, "no error"); };
    const auto run = [&](const grpo::linear_gradients<double>& g, std::int64_t bytes, double n) {
        return message([&] {
            return grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, clipped, w.head(), w.target, {}, w.batch(), n, g,
                                         grpo::view<std::byte>(work.data(), bytes));
        });
    };
    CHECK(run({.hidden = hidden}, least - 1, 1.0) ==
          "grpo::evaluate_hidden: workspace has " + std::to_string(least - 1) + " bytes, but " + std::to_string(least) +
              " are needed");
    CHECK(run({.hidden = hidden, .weight = few}, least, 1.0) ==
          "grpo::evaluate_hidden: gradients.weight has 3 entries, but the batch has 185 entries");
    CHECK(run({.hidden = hidden}, least, -1.0) ==
          "grpo::evaluate_hidden: denominator is -1, but must be finite and at least 0");
    const auto wrong = grpo::linear(w.hidden, w.weight, 10, 37, 5);
    CHECK(message([&] {
              return grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, clipped, wrong, w.target, {}, w.batch(), 1.0,
                                           {.hidden = hidden}, grpo::view(work));
          }) == "grpo::evaluate_hidden: hidden has 55 entries, but the batch has 50 positions");
    CHECK(message([&] {
              return grpo::evaluate_hidden(grpo::serial{}, grpo::plain_gemm{}, clipped, w.head(), w.target, {.slice_of = 40},
                                           w.batch(), 1.0, {.hidden = hidden}, grpo::view(work));
          }) == "grpo::evaluate_hidden: slice_of is 40, but must be 0: slices go through token_logp_of_slices() and d_logits()");
    for (const double x : hidden) CHECK(x == 7.0);
    CHECK(run({.hidden = hidden}, least, 1.0) == "no error");
}
