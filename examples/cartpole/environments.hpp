// Several episodes of one task side by side, each starting anew in the step that ends it: the vector environment of
// Gymnasium 0.29, which keeps the last observation of an episode apart from the first one of the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cartpole/dynamics.hpp"
#include "support/random.hpp"

namespace control {

struct episode {
    std::int64_t step = 0;  // environment steps of all environments when it ended
    double returned = 0;    // the sum of its rewards
    std::int64_t length = 0;
    bool terminated = false;
};

// What one step of all environments leaves behind, one entry per environment.
struct arrival {
    float* observation;        // [n, observations]: what is seen next, after a new start where an episode ended
    float* last_observation;   // [n, observations]: the end of the episode, written only where one ended
    float* reward;             // [n]
    std::uint8_t* terminated;  // [n]: the task ended it; no value follows
    std::uint8_t* truncated;   // [n]: the step limit was reached; both may be set
};

class environments {
public:
    virtual ~environments() = default;
    environments() = default;
    environments(const environments&) = delete;
    environments& operator=(const environments&) = delete;

    virtual const task& about() const = 0;
    virtual std::int64_t size() const = 0;
    // Starts every episode anew and writes what is seen, [n, observations].
    virtual void reset(float* observation) = 0;
    // One action per environment. Episodes that end are appended to `ended`, in the order of the environments.
    virtual void step(const std::int64_t* action, const arrival& to, std::vector<episode>& ended) = 0;
};

template <class Dynamics>
class environments_of final : public environments {
public:
    environments_of(std::int64_t n, std::uint64_t seed) {
        for (std::int64_t i = 0; i < n; ++i) all_.emplace_back(seed, static_cast<std::uint64_t>(i));
    }

    const task& about() const override { return Dynamics::about; }
    std::int64_t size() const override { return static_cast<std::int64_t>(all_.size()); }

    void reset(float* observation) override {
        for (one& e : all_) {
            e.begin();
            Dynamics::observe(e.now, observation);
            observation += Dynamics::about.observations;
        }
    }

    void step(const std::int64_t* action, const arrival& to, std::vector<episode>& ended) override {
        steps_ += size();
        for (std::size_t i = 0; i < all_.size(); ++i) {
            one& e = all_[i];
            const std::size_t at = i * static_cast<std::size_t>(Dynamics::about.observations);
            const outcome o = Dynamics::step(e.now, static_cast<int>(action[i]));
            e.so_far.returned += o.reward;
            e.so_far.length += 1;
            const bool truncated = e.so_far.length >= Dynamics::about.step_limit;
            to.reward[i] = static_cast<float>(o.reward);
            to.terminated[i] = o.terminated ? 1 : 0;
            to.truncated[i] = truncated ? 1 : 0;
            if (o.terminated || truncated) {
                Dynamics::observe(e.now, to.last_observation + at);
                ended.push_back({steps_, e.so_far.returned, e.so_far.length, o.terminated});
                e.begin();
            }
            Dynamics::observe(e.now, to.observation + at);
        }
    }

private:
    struct one {
        support::choices random;
        state now{};
        episode so_far;

        one(std::uint64_t seed, std::uint64_t stream) : random(support::mixed({seed, stream})) {}
        void begin() {
            now = Dynamics::start(random);
            so_far = {};
        }
    };

    std::vector<one> all_;
    std::int64_t steps_ = 0;
};

inline const std::vector<task>& tasks() {
    static const std::vector<task> all{cart_pole::about, acrobot::about};
    return all;
}

// `n` environments of the task called `name`, each with random numbers of its own; nullptr for another name.
inline std::unique_ptr<environments> make_environments(const std::string& name, std::int64_t n, std::uint64_t seed) {
    if (name == cart_pole::about.name) return std::make_unique<environments_of<cart_pole>>(n, seed);
    if (name == acrobot::about.name) return std::make_unique<environments_of<acrobot>>(n, seed);
    return nullptr;
}

}  // namespace control
