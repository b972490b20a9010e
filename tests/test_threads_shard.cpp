// A vocabulary in slices over ranks that are threads, against one rank that has all of it.
#include <doctest/doctest.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <grpo/grpo.hpp>

namespace {

// What a collective of threads shares.
struct meeting {
    std::barrier<> barrier;
    std::mutex mutex;
    std::vector<double> joined;
    int reductions = 0;

    explicit meeting(int ranks) : barrier(ranks) {}
};

struct threads_communicator {
    meeting& shared;
    int index;
    int ranks;

    int rank() const { return index; }
    int size() const { return ranks; }
    void all_reduce_max(double* x, std::int64_t n) const {
        reduce(x, n, [](double a, double b) { return std::max(a, b); });
    }
    void all_reduce_sum(double* x, std::int64_t n) const {
        reduce(x, n, [](double a, double b) { return a + b; });
    }

private:
    template <class Join>
    void reduce(double* x, std::int64_t n, const Join& join) const {
        for (int turn = 0; turn < ranks; ++turn) {  // in the order of the ranks: the same bits each time
            if (turn == index) {
                if (turn == 0) shared.joined.assign(x, x + n);
                for (std::size_t i = 0; turn > 0 && i < static_cast<std::size_t>(n); ++i) {
                    shared.joined[i] = join(shared.joined[i], x[i]);
                }
            }
            shared.barrier.arrive_and_wait();
        }
        std::copy(shared.joined.begin(), shared.joined.end(), x);
        if (index == 0) shared.reductions += 1;
        shared.barrier.arrive_and_wait();
    }
};

struct results {
    std::vector<double> logp, entropy, squares, lse, gradient;
    explicit results(std::size_t rows, std::size_t entries)
        : logp(rows, 9.0), entropy(rows, 9.0), squares(rows, 9.0), lse(rows, 9.0), gradient(entries, 9.0) {}
    grpo::softmax_outputs<double> outputs() { return {logp, entropy, squares, lse}; }
};

}  // namespace

TEST_CASE("slices of a vocabulary give what the whole gives, with two reductions and none on the way back") {
    const std::int64_t rows = 6, all = 40;
    std::mt19937 rng(3);
    std::normal_distribution<double> normal(0.0, 4.0);
    std::vector<double> z(static_cast<std::size_t>(rows * all));
    for (double& x : z) x = normal(rng);
    const double minus_inf = -std::numeric_limits<double>::infinity();
    for (std::size_t v = 0; v < 20; ++v) z[40 + v] = minus_inf;                                         // row 1: one slice is empty
    for (std::size_t v = 0; v < 40; ++v) z[80 + v] = minus_inf;                                         // row 2: all are
    for (std::size_t v = 0; v < 40; ++v) z[120 + v] = std::numeric_limits<double>::quiet_NaN();         // row 3: masked
    const std::vector<std::uint8_t> mask{1, 1, 1, 0, 1, 1};
    const std::vector<std::int32_t> target{0, 25, 3, -100, 39, 12};
    const std::vector<double> g{1, -2, 1, 1, 0.5, 3}, h{0.5, 1, 1, 1, -1, 0};
    const grpo::view<const double> d_logp(g), d_entropy(h);

    results whole(6, z.size());
    const grpo::head_options options{.temperature = 0.7, .scale = 1.2, .softcap = 20.0};
    const auto in = grpo::logits(z, rows, all).where(mask);
    grpo::token_logp(grpo::serial{}, in, target, options, whole.outputs());
    grpo::d_logits(grpo::serial{}, in, target, options, d_logp, d_entropy, grpo::view(whole.gradient),
                   {whole.lse, whole.entropy});
    CHECK(whole.logp[2] == minus_inf);

    const std::vector<std::int64_t> cut{0, 20, 21, 40};
    meeting shared(3);
    std::vector<results> part(3, results(6, z.size()));
    std::vector<std::thread> ranks;
    for (int k = 0; k < 3; ++k) {
        ranks.emplace_back([&, k] {
            const std::int64_t first = cut[static_cast<std::size_t>(k)];
            const std::int64_t columns = cut[static_cast<std::size_t>(k) + 1] - first;
            results& out = part[static_cast<std::size_t>(k)];
            const grpo::view<const double> memory(z.data() + first, (rows - 1) * all + columns);
            const auto slice = grpo::logits(memory, rows, columns, all).where(mask);
            grpo::head_options of_slice = options;
            of_slice.first_token = first;
            of_slice.slice_of = all;
            std::vector<double> work(static_cast<std::size_t>(grpo::slices_workspace(rows)));
            grpo::token_logp_of_slices(threads_communicator{shared, k, 3}, grpo::serial{}, slice, target, of_slice,
                                       out.outputs(), grpo::view(work));
            grpo::d_logits(grpo::serial{}, slice, target, of_slice, d_logp, d_entropy,
                           grpo::view<double>(out.gradient.data() + first, memory.size()), {out.lse, out.entropy});
        });
    }
    for (std::thread& t : ranks) t.join();
    CHECK(shared.reductions == 2);
    for (std::size_t k = 0; k < 3; ++k) {
        INFO(k);
        for (std::size_t i = 0; i < 6; ++i) {
            INFO(i);
            if (std::isinf(whole.logp[i])) CHECK(part[k].logp[i] == whole.logp[i]);
            else CHECK(part[k].logp[i] == doctest::Approx(whole.logp[i]).epsilon(1e-13));
            CHECK(part[k].entropy[i] == doctest::Approx(whole.entropy[i]).epsilon(1e-12));
            CHECK(part[k].squares[i] == doctest::Approx(whole.squares[i]).epsilon(1e-12));
            CHECK(part[k].lse[i] == doctest::Approx(whole.lse[i]).epsilon(1e-13));
            for (std::int64_t v = cut[k]; v < cut[k + 1]; ++v) {
                const std::size_t at = i * 40 + static_cast<std::size_t>(v);
                CHECK(part[k].gradient[at] == doctest::Approx(whole.gradient[at]).epsilon(1e-11));
            }
        }
    }
}

TEST_CASE("one rank alone, and a user's mistakes with slices") {
    const std::vector<double> z{0.0, 1.0, 2.0, 3.0};
    const std::vector<int> target{1};
    std::vector<double> logp(1), work(5);
    const auto in = grpo::logits(z, 1, 4);
    const auto run = [&](const grpo::head_options& options, std::int64_t doubles) {
        try {
            grpo::token_logp_of_slices(grpo::self_communicator{}, grpo::serial{}, in, target, options,
                                       grpo::softmax_outputs<double>{.logp = logp}, grpo::view<double>(work.data(), doubles));
        } catch (const grpo::error& e) {
            return std::string(e.what());
        }
        return std::string("no error");
    };
    CHECK(run({}, 5) == "no error");
    CHECK(logp[0] == doctest::Approx(1.0 - std::log(1.0 + std::exp(1.0) + std::exp(2.0) + std::exp(3.0))));
    CHECK(run({}, 4) == "grpo::token_logp_of_slices: workspace has 4 doubles, but 5 are needed");
    CHECK(run({.first_token = 8, .slice_of = 10}, 5) ==
          "grpo::token_logp_of_slices: slice_of is 10, but the columns reach to token 12");
    CHECK(run({.first_token = 1}, 5) == "grpo::token_logp_of_slices: slice_of is 0, but the columns reach to token 5");
}
