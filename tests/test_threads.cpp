// Threads give the same bits as the executor they wrap, whatever their number.
#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <grpo/exec/threads.hpp>
#include <grpo/grpo.hpp>

namespace {

struct rollouts {
    std::vector<std::int64_t> cu{0};
    std::vector<float> logp, logp_old, logp_ref, advantage;
    std::vector<std::uint8_t> mask;

    explicit rollouts(int rows) {
        std::mt19937 rng(7);
        std::uniform_real_distribution<float> u(-1.0f, 1.0f);
        for (int row = 0; row < rows; ++row) {
            cu.push_back(cu.back() + static_cast<std::int64_t>(rng() % 40));
            advantage.push_back(u(rng));
        }
        for (std::int64_t i = 0; i < cu.back(); ++i) {
            logp.push_back(-1.5f + u(rng));
            logp_old.push_back(logp.back() + 0.3f * u(rng));
            logp_ref.push_back(logp.back() + 0.3f * u(rng));
            mask.push_back(rng() % 5 != 0);
        }
    }

    template <class Exec>
    std::vector<double> evaluate(Exec&& exec, const grpo::aggregation& over) const {
        const grpo::objective loss{grpo::clipped{} + 0.1 * grpo::kl{}, over};
        const auto shape = grpo::ragged(cu).where(mask);
        const auto batch = grpo::batch(shape, grpo::logp(logp), grpo::logp_old(logp_old), grpo::logp_ref(logp_ref),
                                       grpo::advantage(grpo::by_sequence(advantage)));
        std::vector<float> gradient(logp.size(), 9.0f);
        const double n = over.denominator(grpo::count(shape));
        const grpo::loss_result r = grpo::evaluate(exec, loss.diagnosed(), batch, n, grpo::d_logp(gradient));
        std::vector<double> all(gradient.begin(), gradient.end());
        for (const double x : {r.sum, r.weight, static_cast<double>(r.count.tokens), r.metrics.approx_kl,
                               r.metrics.largest_log_ratio, r.metrics.ratio_square}) {
            all.push_back(x);
        }
        return all;
    }
};

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

}  // namespace

TEST_CASE("any number of threads gives serial's bits") {
    for (const int rows : {0, 1, 2, 17, 300}) {
        const rollouts data(rows);
        for (const auto& over : {grpo::aggregation::token_mean(), grpo::aggregation::sequence_mean()}) {
            const auto expected = data.evaluate(grpo::serial{}, over);
            for (const int n : {1, 2, 3, 8}) {
                const grpo::threads<> pool(n);
                CHECK(pool.size() == n);
                for (int again = 0; again < 3; ++again) CHECK(same_bits(data.evaluate(pool, over), expected));
            }
        }
    }
}

TEST_CASE("a borrowed pool serves several executors and survives idling") {
    grpo::thread_pool pool(3);
    const rollouts data(50);
    const auto expected = data.evaluate(grpo::serial{}, grpo::aggregation::token_mean());
    for (int again = 0; again < 20; ++again) {
        const grpo::threads<> exec(pool);
        CHECK(same_bits(data.evaluate(exec, grpo::aggregation::token_mean()), expected));
        if (again % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
}

TEST_CASE("teams() hands out every row exactly once") {
    const grpo::threads<> exec(4);
    for (const std::int64_t rows : {0, 1, 31, 32, 33, 1000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(rows));
        exec.teams(rows, [&](auto&, std::int64_t row) { ++seen[static_cast<std::size_t>(row)]; });
        for (const auto& count : seen) CHECK(count == 1);
    }
}

TEST_CASE("a pool of no threads is refused") {
    CHECK_THROWS_WITH_AS(grpo::threads<>(0), "grpo::thread_pool: threads is 0, but must be at least 1", grpo::error);
}
