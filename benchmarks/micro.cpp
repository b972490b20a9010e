// How long each primitive takes on this machine, without a peer: Google Benchmark's tables and options, e.g.
//   micro --benchmark_filter=token_loss/clip --benchmark_repetitions=5
// Names end in rows/width. items are tokens (rewards for groups); bytes are those of the arrays that the call must read
// and write once, so bytes per second beside the memory's bandwidth say how far a primitive is from the limit.
#include <benchmark/benchmark.h>

#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <grpo/exec/threads.hpp>
#include <grpo/grpo.hpp>
#if __has_include(<xsimd/xsimd.hpp>)
#include <grpo/exec/simd.hpp>
#define GRPO_MICRO_SIMD 1
#endif

#include "cases.hpp"

namespace {

using benchmark::State;

constexpr std::pair<std::int64_t, std::int64_t> sizes[] = {{8, 512}, {64, 1024}, {256, 4096}};

bench::batch input(const State& state) {
    return bench::make_batch(state.range(0), state.range(1), bench::masking::ragged);
}

std::vector<float> output(const bench::batch& b) {
    return std::vector<float>(b.logp.size());
}

void count(State& state, std::int64_t items, std::int64_t bytes_per_item) {
    state.SetItemsProcessed(state.iterations() * items);
    state.SetBytesProcessed(state.iterations() * items * bytes_per_item);
}

enum class timer { cpu, wall };

/// f(name, timer, executor factory) for every executor at hand.
template <class F>
void each_executor(const F& f) {
    f("serial", timer::cpu, [] { return grpo::serial{}; });
#if defined(GRPO_MICRO_SIMD)
    f("simd", timer::cpu, [] { return grpo::simd{}; });
    f("simd_threads2", timer::wall, [] { return grpo::threads<grpo::simd>(2); });
#else
    f("threads2", timer::wall, [] { return grpo::threads<grpo::serial>(2); });
#endif
}

/// run(state, executor) at every size, under the name what/executor/rows/width. Rates are per second of the thread's
/// CPU time, or of wall time (real_time) with several threads.
template <class Run>
void at_every_size(const std::string& what, const Run& run) {
    each_executor([&](const char* name, timer which, auto make) {
        auto* added = benchmark::RegisterBenchmark((what + "/" + name).c_str(), [run, make](State& state) {
            const auto exec = make();
            run(state, exec);
        });
        for (const auto& [rows, width] : sizes) added->Args({rows, width});
        if (which == timer::wall) added->UseRealTime();
        added->Unit(benchmark::kMicrosecond);
    });
}

/// Loss and gradient by logp.
template <class Loss>
void token_loss(const std::string& name, const Loss& loss) {
    at_every_size("token_loss/" + name, [loss](State& state, const auto& exec) {
        const bench::batch b = input(state);
        std::vector<float> gradient = output(b);
        const auto shape = grpo::padded(b.rows, b.width).where(b.mask);
        const auto batch = grpo::batch(shape, grpo::logp(b.logp), grpo::logp_old(b.logp_old),
                                       grpo::logp_ref(b.logp_ref), grpo::advantage(grpo::by_sequence(b.advantage)));
        const double n = loss.over.denominator(grpo::count(shape));
        for (auto _ : state) {
            benchmark::DoNotOptimize(grpo::evaluate(exec, loss, batch, n, grpo::d_logp(gradient)));
            benchmark::ClobberMemory();
        }
        const int inputs = std::popcount(decltype(loss.term)::needs & ~grpo::input::advantage::bit);
        count(state, b.tokens(), 4 * inputs + 1 + 4);
    });
}

void token_losses() {
    using grpo::aggregation;
    using grpo::objective;
    const auto policy = grpo::clipped{} + 0.04 * grpo::kl{};
    token_loss("clip", objective{grpo::clipped{}, aggregation::token_mean()});
    token_loss("clip_kl", objective{policy, aggregation::token_mean()});
    token_loss("clip_kl_diagnosed", objective{policy, aggregation::token_mean()}.diagnosed());
    token_loss("dual_clip", objective{grpo::dual_clip{}, aggregation::sequence_mean()});
    token_loss("cispo", objective{grpo::cispo{}, aggregation::token_mean()});
    token_loss("sapo", objective{grpo::sapo{}, aggregation::sequence_mean()});
    token_loss("gspo", objective{grpo::gspo{}, aggregation::sequence_mean()});
    token_loss("gmpo", objective{grpo::gmpo{}, aggregation::sequence_mean()});
}

void returns() {
    at_every_size("gae", [](State& state, const auto& exec) {
        const bench::batch b = input(state);
        std::vector<float> advantage = output(b);
        std::vector<float> targets = output(b);
        const grpo::gae_inputs<float> in{.reward = b.reward, .value = b.value};
        for (auto _ : state) {
            grpo::gae(exec, grpo::padded(b.rows, b.width), in, {.gamma = 0.99, .lambda = 0.95}, advantage, targets);
            benchmark::ClobberMemory();
        }
        count(state, b.tokens(), 2 * 4 + 2 * 4);
    });
    at_every_size("gae_masked", [](State& state, const auto& exec) {
        const bench::batch b = input(state);
        std::vector<float> advantage = output(b);
        std::vector<float> targets = output(b);
        const grpo::gae_inputs<float> in{.reward = b.reward, .value = b.value};
        const auto shape = grpo::padded(b.rows, b.width).where(b.mask);
        for (auto _ : state) {
            grpo::gae(exec, shape, in, {.gamma = 0.99, .lambda = 0.95}, advantage, targets);
            benchmark::ClobberMemory();
        }
        count(state, b.tokens(), 2 * 4 + 1 + 2 * 4);
    });
    at_every_size("discounted_returns", [](State& state, const auto& exec) {
        const bench::batch b = input(state);
        std::vector<float> sums = output(b);
        const auto shape = grpo::padded(b.rows, b.width).where(b.mask);
        for (auto _ : state) {
            grpo::discounted_returns(exec, shape, 0.99, b.reward, sums);
            benchmark::ClobberMemory();
        }
        count(state, b.tokens(), 4 + 1 + 4);
    });
}

void batch_wide() {
    at_every_size("whiten", [](State& state, const auto& exec) {
        const bench::batch b = input(state);
        std::vector<float> white = output(b);
        const auto shape = grpo::padded(b.rows, b.width).where(b.mask);
        for (auto _ : state) {
            grpo::whiten(exec, shape, b.value, white);
            benchmark::ClobberMemory();
        }
        count(state, b.tokens(), 4 + 1 + 4);
    });
    at_every_size("correction_weights/truncated", [](State& state, const auto& exec) {
        const bench::batch b = input(state);
        std::vector<float> weight = output(b);
        const auto shape = grpo::padded(b.rows, b.width).where(b.mask);
        const auto batch = grpo::batch(shape, grpo::logp_old(b.logp), grpo::logp_rollout(b.logp_old));
        for (auto _ : state) {
            benchmark::DoNotOptimize(grpo::correction_weights(exec, batch, grpo::correction::tis(), weight));
            benchmark::ClobberMemory();
        }
        count(state, b.tokens(), 2 * 4 + 1 + 4);
    });
}

/// Group normalisation on its own: so short that an executor would only be in the way.
void group_normalised(State& state) {
    const std::int64_t size = state.range(1);
    const bench::batch b = bench::make_batch(state.range(0), size, bench::masking::full);
    std::vector<float> advantage = output(b);
    for (auto _ : state) {
        grpo::group_normalised(grpo::padded(b.rows, size), b.reward, advantage);
        benchmark::ClobberMemory();
    }
    count(state, b.tokens(), 4 + 4);
}
BENCHMARK(group_normalised)->Args({8, 8})->Args({64, 8})->Args({64, 64});

/// Groups of 8 sequences, a step every 64 tokens.
void process_supervision() {
    at_every_size("process_supervision", [](State& state, const auto& exec) {
        constexpr std::int64_t step = 64;
        const bench::batch b = input(state);
        std::vector<std::int64_t> offsets{0};
        std::vector<std::int64_t> ends;
        for (std::int64_t row = 0; row < b.rows; ++row) {
            for (std::int64_t t = step - 1; t < b.width; t += step) ends.push_back(t);
            offsets.push_back(static_cast<std::int64_t>(ends.size()));
        }
        const std::vector<float> reward(b.reward.begin(), b.reward.begin() + static_cast<std::ptrdiff_t>(ends.size()));
        std::vector<float> normalised(ends.size());
        std::vector<float> advantage = output(b);
        const grpo::reasoning_steps<float> steps{offsets, ends, reward};
        const auto shape = grpo::padded(b.rows, b.width).where(b.mask);
        for (auto _ : state) {
            grpo::process_supervision(exec, grpo::padded(b.rows / 8, 8), shape, steps, normalised, advantage);
            benchmark::ClobberMemory();
        }
        count(state, b.tokens(), 1 + 4);
    });
}

}  // namespace

int main(int argc, char** argv) {
    token_losses();
    returns();
    batch_wide();
    process_supervision();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
