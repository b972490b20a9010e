// Seeds of tasks trained side by side, one thread each, with a table of metrics per seed.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "cartpole/ppo.hpp"
#include "cartpole/settings.hpp"
#include "support/blas.hpp"
#include "support/csv.hpp"
#include "support/interrupt.hpp"

namespace control {

// CleanRL's table averages the returns of a run's last 100 episodes, and its curves run over as many.
inline constexpr std::size_t episodes_averaged = 100;

// NaN before the first episode has ended.
inline double recent_return(const std::vector<episode>& all) {
    const std::size_t n = std::min(episodes_averaged, all.size());
    if (n == 0) return std::numeric_limits<double>::quiet_NaN();
    double sum = 0;
    for (std::size_t i = all.size() - n; i < all.size(); ++i) sum += all[i].returned;
    return sum / static_cast<double>(n);
}

struct run {
    task about;
    std::uint64_t seed;
    std::string metrics;  // where its table goes
    bool complete = false;
    double score = 0;  // the mean return of the last 100 episodes
    std::int64_t episodes = 0;
    std::int64_t steps = 0;
    double core_seconds = 0;  // the time of the processor, which neighbours on the machine do not change
    double play_seconds = 0;  // of them, in the environments and the policy that plays
};

inline std::vector<std::string> metric_columns() {
    return {"step",    "episodes",  "episodic_return", "learning_rate",     "loss",
            "entropy", "approx_kl", "clip_fraction",   "explained_variance"};
}

// Means of the updates since the last row.
class metric_rows {
public:
    explicit metric_rows(const std::string& path) : table_(path, metric_columns()) {}

    void add(const update_report& r) {
        sum_.loss += r.loss;
        sum_.entropy += r.entropy;
        sum_.approx_kl += r.approx_kl;
        sum_.clip_fraction += r.clip_fraction;
        sum_.explained_variance += r.explained_variance;
        sum_.learning_rate = r.learning_rate;
        n_ += 1;
    }
    void write(std::int64_t step, const std::vector<episode>& ended) {
        const std::vector<double> row{static_cast<double>(ended.size()),
                                      recent_return(ended),
                                      sum_.learning_rate,
                                      sum_.loss / n_,
                                      sum_.entropy / n_,
                                      sum_.approx_kl / n_,
                                      sum_.clip_fraction / n_,
                                      sum_.explained_variance / n_};
        table_.row(step, row);
        sum_ = {};
        n_ = 0;
    }

private:
    support::csv_writer table_;
    update_report sum_;
    double n_ = 0;
};

// What the runs of a program share.
struct shared_state {
    std::atomic<std::int64_t> steps{0};  // played so far
    std::atomic<bool> failed{false};
    bool stopped() const { return failed || support::interrupted(); }
};

// Trains one seed to its end, or until it is to stop.
inline void train(run& r, const settings& s, std::int64_t updates_per_row, shared_state& all) {
    const double begin = core_time();
    metric_rows rows(r.metrics);
    ppo learner(r.about.name, s, r.seed);
    while (!learner.finished() && !all.stopped()) {
        rows.add(learner.update());
        if (learner.updates() % updates_per_row == 0 || learner.finished())
            rows.write(learner.steps(), learner.episodes());
        all.steps += s.batch_size();
    }
    r.complete = learner.finished();
    r.score = recent_return(learner.episodes());
    r.episodes = static_cast<std::int64_t>(learner.episodes().size());
    r.steps = learner.steps();
    r.play_seconds = learner.play_seconds();
    r.core_seconds = core_time() - begin;
}

// Trains all runs with so many threads; `watch` is called with the steps played so far, a few times a second. The first
// error ends all runs and is thrown.
template <class Watch>
void train_all(std::vector<run>& runs, const settings& s, std::int64_t updates_per_row, std::int64_t threads,
               Watch&& watch) {
    at::set_num_threads(1);
    support::set_blas_threads(1);
    std::atomic<std::size_t> next{0};
    shared_state all;
    std::atomic<std::int64_t> working{threads};
    std::exception_ptr error;
    std::mutex guards_error;
    const auto work = [&] {
        try {
            for (std::size_t i = next++; i < runs.size() && !all.stopped(); i = next++)
                train(runs[i], s, updates_per_row, all);
        } catch (...) {
            const std::lock_guard lock(guards_error);
            if (!error) error = std::current_exception();
            all.failed = true;
        }
        --working;
    };
    std::vector<std::jthread> workers;
    for (std::int64_t k = 0; k < threads; ++k) workers.emplace_back(work);
    while (working > 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        watch(all.steps.load());
    }
    workers.clear();
    if (error) std::rethrow_exception(error);
}

}  // namespace control
