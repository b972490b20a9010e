// The library beside LibTorch and beside a loop written by hand: every contestant is checked against double precision,
// then all of them are timed in turn. "torch trl" is the form that the frameworks ship and the denominator to quote;
// "torch lean" and "torch closed" say what a careful user of LibTorch can have, the scalar loop what anybody can have
// without a library.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <grpo/exec/simd.hpp>
#include <grpo/exec/threads.hpp>
#include <grpo/grpo.hpp>

#include "cases.hpp"
#include "clock.hpp"
#include "handwritten.hpp"
#include "peer_torch.hpp"
#include "table.hpp"

namespace {

using bench::check;
using field = std::vector<bench::contestant>;

std::shared_ptr<std::vector<float>> output(const bench::batch& b) {
    return std::make_shared<std::vector<float>>(b.logp.size(), std::numeric_limits<float>::quiet_NaN());
}

std::string size_of(const bench::batch& b) {
    return std::to_string(b.rows) + "x" + std::to_string(b.width);
}

int rounds_for(const bench::batch& b) {
    return b.tokens() > 500000 ? 9 : 25;
}

// ---- policy loss ----------------------------------------------------------------------------------------------

constexpr double low = 0.2;
constexpr double high = 0.2;
constexpr double beta = 0.04;

const grpo::objective policy_loss{grpo::clipped{.low = low, .high = high} + beta * grpo::kl{},
                                  grpo::aggregation::token_mean()};

/// Ours. Like the peers, each call counts the active tokens of the mask.
template <class Exec, class Loss>
void add_loss(field& to, const std::string& name, std::shared_ptr<Exec> exec, const Loss& loss, const bench::batch& b,
              const bench::answer& truth) {
    const auto gradient = output(b);
    const auto run = [&b, exec, loss, gradient] {
        const auto shape = grpo::padded(b.rows, b.width).where(b.mask);
        const auto batch = grpo::batch(shape, grpo::logp(b.logp), grpo::logp_old(b.logp_old),
                                       grpo::logp_ref(b.logp_ref), grpo::advantage(grpo::by_sequence(b.advantage)));
        const double n = loss.over.denominator(grpo::count(shape));
        return grpo::evaluate(*exec, loss, batch, n, grpo::d_logp(*gradient)).loss(n);
    };
    check(name, std::abs(run() - truth.value), 2e-6);
    check(name, bench::relative_error(gradient->data(), truth.gradient), 2e-6);
    to.push_back({name, [run, gradient] {
                      run();
                      bench::keep(gradient->data());
                  }});
}

void add_torch_losses(field& to, const bench::batch& b, const bench::answer& truth) {
    const peer::policy_inputs in{
        b.rows, b.width, b.logp.data(), b.logp_old.data(), b.logp_ref.data(), b.advantage.data(), b.mask.data(),
        low,    high,    beta};
    const std::pair<const char*, peer::policy_form> forms[] = {{"torch trl", peer::policy_form::trl},
                                                               {"torch verl", peer::policy_form::verl},
                                                               {"torch lean", peer::policy_form::lean},
                                                               {"torch closed", peer::policy_form::closed}};
    for (const auto& [name, form] : forms) {
        const auto loss = std::make_shared<peer::policy_loss>(in, form);
        check(name, std::abs(loss->run() - truth.value), 2e-6);
        check(name, bench::relative_error(loss->gradient(), truth.gradient), 2e-6);
        to.push_back({name, [loss] { loss->run(); }});
    }
}

void add_handwritten_loss(field& to, const bench::batch& b, const bench::answer& truth) {
    const auto gradient = output(b);
    const auto run = [&b, gradient] {
        return handwritten::token_loss(b.rows, b.width, b.logp.data(), b.logp_old.data(), b.logp_ref.data(),
                                       b.advantage.data(), b.mask.data(), static_cast<double>(b.active), {},
                                       gradient->data());
    };
    check("handwritten scalar", std::abs(run() - truth.value), 2e-6);
    check("handwritten scalar", bench::relative_error(gradient->data(), truth.gradient), 2e-6);
    to.push_back({"handwritten scalar", [run, gradient] {
                      run();
                      bench::keep(gradient->data());
                  }});
}

std::string title_of(const bench::batch& b, bench::masking kind, const char* threads) {
    return "policy loss and gradient, clip + 0.04 k3, " + size_of(b) + ", " +
           (kind == bench::masking::full ? "full" : "ragged") + " mask, " + threads;
}

void policy(std::int64_t rows, std::int64_t width, bench::masking kind) {
    const bench::batch b = bench::make_batch(rows, width, kind);
    const bench::answer truth = bench::policy_answer(b, low, high, beta);
    peer::set_threads(1);
    field all;
    add_torch_losses(all, b, truth);
    add_handwritten_loss(all, b, truth);
    add_loss(all, "grpo serial", std::make_shared<grpo::serial>(), policy_loss, b, truth);
    add_loss(all, "grpo simd, diagnosed", std::make_shared<grpo::simd>(), policy_loss.diagnosed(), b, truth);
    add_loss(all, "grpo simd", std::make_shared<grpo::simd>(), policy_loss, b, truth);
    bench::print(title_of(b, kind, "1 thread, its CPU time"), bench::race(all, rounds_for(b)),
                 {"torch trl", "torch lean", "handwritten scalar"});
}

void policy_on_two_threads(std::int64_t rows, std::int64_t width, bench::masking kind) {
    const bench::batch b = bench::make_batch(rows, width, kind);
    const bench::answer truth = bench::policy_answer(b, low, high, beta);
    peer::set_threads(2);
    field all;
    add_torch_losses(all, b, truth);
    const std::string one = "grpo simd, 1 thread";
    add_loss(all, one, std::make_shared<grpo::simd>(), policy_loss, b, truth);
    add_loss(all, "grpo threads<simd>(2)", std::make_shared<grpo::threads<grpo::simd>>(2), policy_loss, b, truth);
    bench::print(title_of(b, kind, "2 threads, wall time"), bench::race(all, rounds_for(b), bench::timebase::wall),
                 {"torch trl", "torch lean", one});
    peer::set_threads(1);
}

// ---- other losses ---------------------------------------------------------------------------------------------

template <class Loss>
void add_loss_type(field& to, const std::string& name, const Loss& loss, const bench::batch& b,
                   const bench::answer& truth) {
    add_loss(to, name + ", serial", std::make_shared<grpo::serial>(), loss, b, truth);
    add_loss(to, name + ", simd", std::make_shared<grpo::simd>(), loss, b, truth);
}

void loss_types(std::int64_t rows, std::int64_t width) {
    using bench::weighing;
    const bench::batch b = bench::make_batch(rows, width, bench::masking::ragged);
    const double length = static_cast<double>(width);
    field all;
    add_loss_type(all, "grpo", grpo::objective{grpo::clipped{} + beta * grpo::kl{}, grpo::aggregation::sequence_mean()},
                  b, bench::policy_answer(b, 0.2, 0.2, beta, weighing::sequence_mean));
    add_loss_type(all, "dapo", grpo::objective{grpo::clipped{.high = 0.28}, grpo::aggregation::token_mean()}, b,
                  bench::policy_answer(b, 0.2, 0.28, 0.0, weighing::token_mean));
    add_loss_type(all, "dr_grpo", grpo::objective{grpo::clipped{}, grpo::aggregation::constant_length(length)}, b,
                  bench::policy_answer(b, 0.2, 0.2, 0.0, weighing::constant_length));
    add_loss_type(all, "cispo", grpo::objective{grpo::cispo{}, grpo::aggregation::token_mean()}, b,
                  bench::cispo_answer(b, 0.2, 0.2, weighing::token_mean));
    add_loss_type(all, "gspo", grpo::objective{grpo::gspo{}, grpo::aggregation::sequence_mean()}, b,
                  bench::gspo_answer(b, 3e-4, 4e-4));
    bench::print("loss types, " + size_of(b) + ", ragged mask, 1 thread, its CPU time", bench::race(all, rounds_for(b)),
                 {});
}

// ---- GAE ------------------------------------------------------------------------------------------------------

constexpr double gamma = 0.99;
constexpr double lambda = 0.95;

void check_gae(const std::string& name, const bench::batch& b, const std::vector<double>& truth, const float* advantage,
               const float* returns) {
    std::vector<double> sum(truth);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(b.value[i]);
    check(name + ", advantages", bench::relative_error(advantage, truth, &b.mask), 5e-6);
    check(name + ", returns", bench::relative_error(returns, sum, &b.mask), 5e-6);
}

void add_torch_gae(field& to, const std::string& name, peer::gae_form form, const bench::batch& b,
                   const std::vector<double>& truth) {
    const auto g = std::make_shared<peer::gae>(
        peer::gae_inputs{b.rows, b.width, b.reward.data(), b.value.data(), b.mask.data(), gamma, lambda}, form);
    g->run();
    check_gae(name, b, truth, g->advantage(), g->returns());
    to.push_back({name, [g] { g->run(); }});
}

template <class Exec, class Shape>
void add_gae(field& to, const std::string& name, const Exec& exec, const Shape& shape, const bench::batch& b,
             const std::vector<double>& truth) {
    const auto advantage = output(b);
    const auto returns = output(b);
    const auto run = [&b, exec, shape, advantage, returns] {
        const grpo::gae_inputs<float> in{.reward = b.reward, .value = b.value};
        grpo::gae(exec, shape, in, {.gamma = gamma, .lambda = lambda}, *advantage, *returns);
        bench::keep(advantage->data());
        bench::keep(returns->data());
    };
    run();
    check_gae(name, b, truth, advantage->data(), returns->data());
    to.push_back({name, run});
}

void gae(std::int64_t rows, std::int64_t width) {
    const bench::batch b = bench::make_batch(rows, width, bench::masking::full);
    const std::vector<double> truth = bench::gae_answer(b, gamma, lambda);
    const auto shape = grpo::padded(rows, width);
    field all;
    add_torch_gae(all, "torch trl", peer::gae_form::trl, b, truth);
    add_torch_gae(all, "torch lean", peer::gae_form::hoisted, b, truth);
    add_gae(all, "grpo serial", grpo::serial{}, shape, b, truth);
    add_gae(all, "grpo simd", grpo::simd{}, shape, b, truth);
    bench::print("GAE, advantages and returns, " + size_of(b) + ", no mask, 1 thread, its CPU time",
                 bench::race(all, rounds_for(b)), {"torch trl", "torch lean"});
}

void masked_gae(std::int64_t rows, std::int64_t width) {
    const bench::batch b = bench::make_batch(rows, width, bench::masking::ragged);
    const std::vector<double> truth = bench::gae_answer(b, gamma, lambda);
    const auto shape = grpo::padded(rows, width).where(b.mask);
    field all;
    add_torch_gae(all, "torch verl", peer::gae_form::verl, b, truth);
    add_gae(all, "grpo serial", grpo::serial{}, shape, b, truth);
    add_gae(all, "grpo simd", grpo::simd{}, shape, b, truth);
    bench::print("GAE, advantages and returns, " + size_of(b) + ", ragged mask with holes, 1 thread, its CPU time",
                 bench::race(all, rounds_for(b)), {"torch verl"});
}

// ---- group normalisation --------------------------------------------------------------------------------------

void groups(std::int64_t count, std::int64_t size) {
    const bench::batch b = bench::make_batch(1, count, bench::masking::full);
    const std::vector<double> truth = bench::group_answer(b.reward, static_cast<std::size_t>(size), 1e-4);
    const std::pair<const char*, peer::group_form> forms[] = {{"torch trl", peer::group_form::trl},
                                                              {"torch broadcast", peer::group_form::broadcast},
                                                              {"torch lean", peer::group_form::together}};
    field all;
    for (const auto& [name, form] : forms) {
        const auto g = std::make_shared<peer::group_normalise>(b.reward.data(), count, size, 1e-4, form);
        g->run();
        check(name, bench::relative_error(g->advantage(), truth), 5e-6);
        all.push_back({name, [g] { g->run(); }});
    }
    const auto advantage = output(b);
    const auto run = [&b, advantage, count, size] {
        grpo::group_normalised(grpo::padded(count / size, size), b.reward, *advantage, {.eps = 1e-4});
        bench::keep(advantage->data());
    };
    run();
    check("grpo serial", bench::relative_error(advantage->data(), truth), 5e-6);
    all.push_back({"grpo serial", run});
    bench::print("group normalisation, " + std::to_string(count) + " rewards in groups of " + std::to_string(size),
                 bench::race(all, 25), {"torch trl", "torch lean"});
}

}  // namespace

int main(int argc, char** argv) {
    const bool stock = argc == 2 && std::strcmp(argv[1], "--stock") == 0;
    if (argc > 1 && !stock) {
        std::fprintf(stderr, "usage: compare [--stock]\n");
        return 2;
    }
    if (!stock) {
        bench::keep_freed_memory();
        peer::prefer_avx512();
    }
    peer::set_threads(1);
    std::printf("%s, %s\n", peer::describe().c_str(), stock ? "stock" : "tuned");
    const std::pair<std::int64_t, std::int64_t> sizes[] = {{8, 512}, {64, 1024}, {256, 4096}};
    for (const auto kind : {bench::masking::full, bench::masking::ragged})
        for (const auto& [rows, width] : sizes) policy(rows, width, kind);
    for (const auto& [rows, width] : sizes) policy_on_two_threads(rows, width, bench::masking::ragged);
    loss_types(64, 1024);
    for (const auto& [rows, width] : sizes) gae(rows, width);
    for (const auto& [rows, width] : sizes) masked_gae(rows, width);
    groups(64, 8);
    groups(512, 8);
    if (bench::failures > 0) std::printf("\n%d wrong answer(s): no time above counts\n", bench::failures);
    return bench::failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
