// Inputs of the head's benchmark and their answers in double precision.
#pragma once

#include <sys/mman.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <grpo/storage.hpp>

#include "cases.hpp"
#include "head_inputs.hpp"

namespace bench {

/// Memory straight from the kernel, so that it is on the same pages and goes back at the end whatever malloc was told.
class pages {
public:
    explicit pages(std::int64_t bytes) : bytes_(bytes) {
        const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
        void* const p = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE, kind, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<char*>(p);
    }
    pages(const pages&) = delete;
    pages& operator=(const pages&) = delete;
    ~pages() { munmap(data_, static_cast<std::size_t>(bytes_)); }

    template <class T>
    T* as() const {
        return reinterpret_cast<T*>(data_);
    }
    char* data() const { return data_; }
    std::int64_t bytes() const { return bytes_; }

private:
    char* data_;
    std::int64_t bytes_;
};

/// body(first, last) for the halves of [0, n), each on a thread.
template <class F>
void in_halves(std::int64_t n, const F& body) {
    std::thread second([&] { body(n / 2, n); });
    body(0, n / 2);
    second.join();
}

/// Normal numbers times `scale`. A million of them, over and over: more would take longer than the benchmark.
template <class T>
void fill_normal(T* out, std::int64_t n, float scale, unsigned seed) {
    constexpr std::int64_t period = 1'000'003;
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0.0f, scale);
    for (std::int64_t i = 0; i < std::min(n, period); ++i) out[i] = static_cast<T>(normal(rng));
    for (std::int64_t i = period; i < n; i += period)
        std::memcpy(out + i, out, static_cast<std::size_t>(std::min(period, n - i)) * sizeof(T));
}

struct head_spec {
    std::int64_t tokens = 0;
    std::int64_t vocabulary = 0;
    storage type = storage::f32;
    double temperature = 1.0;
    bool half_masked = false;  // the second half of every sequence
    std::int64_t width = 0;    // of the hidden states; 0: the case begins with logits

    std::int64_t per_sequence() const { return tokens < 1024 ? 64 : 256; }
    /// N x V, N x H x V.
    std::string text() const {
        std::string s = std::to_string(tokens) + " x ";
        if (width > 0) s.append(std::to_string(width)).append(" x ");
        s.append(std::to_string(vocabulary)).append(type == storage::f32 ? " f32" : " bf16");
        if (temperature != 1.0) s.append(" temperature ").append(std::to_string(temperature), 0, 3);
        return half_masked ? s.append(" half masked") : s;
    }
};

/// A difference from the present log-probability on one side of every clip bound, bf16 rounding and all.
template <class Rng>
double off_kink_log_ratio(Rng& rng) {
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    const double u = uniform(rng);
    return std::abs(u) < 0.6 ? 0.2 * u : u < 0 ? u : 0.5 * u;
}

/// Everything of a batch that is one number a token or sequence, and the answers of its loss.
struct head_tokens {
    head_spec spec;
    std::vector<std::int64_t> targets;
    std::vector<float> d_logp, logp_old, logp_ref, advantage;
    std::vector<std::uint8_t> mask;
    std::vector<double> logp, entropy, log_sum;  // log_sum: log of the sum of e^z
    std::vector<double> slope;                   // dloss/dlogp, the denominator included
    double loss = 0;
    std::int64_t active = 0;

    explicit head_tokens(const head_spec& s) : spec(s) {
        const auto n = static_cast<std::size_t>(s.tokens);
        for (auto* v : {&logp, &entropy, &log_sum, &slope}) v->resize(n);
        std::mt19937 rng(11);
        std::uniform_int_distribution<std::int64_t> any(0, s.vocabulary - 1);
        std::normal_distribution<float> normal(0.0f, 1.0f);
        for (std::int64_t i = 0; i < s.tokens; ++i) {
            const bool on = !s.half_masked || i % s.per_sequence() < s.per_sequence() / 2;
            targets.push_back(any(rng));
            mask.push_back(on ? 1 : 0);
            d_logp.push_back(on ? normal(rng) : 0.0f);
            active += on;
        }
        for (std::int64_t i = 0; i < s.tokens / s.per_sequence(); ++i) advantage.push_back(normal(rng));
    }

    /// Once logp is known: old and reference ones near it, the loss and its slopes.
    void choose_others() {
        std::mt19937 rng(13);
        std::normal_distribution<double> normal(0.0, 0.2);
        const auto per_sequence = static_cast<std::size_t>(spec.per_sequence());
        for (std::size_t i = 0; i < logp.size(); ++i) {
            logp_old.push_back(static_cast<float>(logp[i] - off_kink_log_ratio(rng)));
            logp_ref.push_back(static_cast<float>(logp[i] + normal(rng)));
            if (!mask[i]) continue;
            const double d = static_cast<double>(logp_ref[i]) - logp[i];
            const double ratio = std::exp(logp[i] - static_cast<double>(logp_old[i]));
            const loss_and_slope clip = clipped_answer(advantage[i / per_sequence], ratio, 0.2, 0.2);
            slope[i] = (clip.slope - 0.04 * std::expm1(d)) / static_cast<double>(active);
            loss += (clip.loss + 0.04 * (std::expm1(d) - d)) / static_cast<double>(active);
        }
    }

    head_inputs inputs(void* logits) const {
        return {.tokens = spec.tokens,
                .vocabulary = spec.vocabulary,
                .per_sequence = spec.per_sequence(),
                .type = spec.type,
                .logits = logits,
                .targets = targets.data(),
                .temperature = spec.temperature,
                .d_logp = d_logp.data(),
                .logp_old = logp_old.data(),
                .logp_ref = logp_ref.data(),
                .advantage = advantage.data(),
                .mask = mask.data()};
    }
};

/// A batch that begins with logits. `work` is of the same size: what in-place contestants overwrite, and where the
/// others write to.
class head_case {
public:
    head_tokens tokens;
    pages logits, work;

    explicit head_case(const head_spec& spec)
        : tokens(spec), logits(spec.tokens * spec.vocabulary * bytes_of(spec.type)), work(logits.bytes()) {
        if (spec.type == storage::f32)
            fill<float>();
        else
            fill<grpo::bfloat16>();
        tokens.choose_others();
    }

    void restore_work() const { std::memcpy(work.data(), logits.data(), static_cast<std::size_t>(work.bytes())); }
    /// Every entry is NaN.
    void spoil_work() const { std::memset(work.data(), 0xff, static_cast<std::size_t>(work.bytes())); }

    /// Of d/dlogits in `work` or wherever it lies, given the slopes by logp: the largest difference relative to the
    /// largest entry, over the first sequence and the last token.
    template <class T, class Slopes>
    double gradient_error(const T* gradient, const Slopes& slopes) const {
        const head_spec& s = tokens.spec;
        double worst[2] = {0, 0}, scale[2] = {0, 0};
        in_halves(s.per_sequence() + 1, [&](std::int64_t first, std::int64_t last) {
            const int half = first > 0;
            for (std::int64_t k = first; k < last; ++k) {
                const std::int64_t row = k < s.per_sequence() ? k : s.tokens - 1;
                row_error(gradient + row * s.vocabulary, row,
                          static_cast<double>(slopes[static_cast<std::size_t>(row)]), worst[half], scale[half]);
            }
        });
        const double top = std::max(scale[0], scale[1]);
        return std::isnan(worst[0]) ? worst[0] : std::isnan(worst[1]) ? worst[1] : std::max(worst[0], worst[1]) / top;
    }

private:
    template <class T>
    double z(std::int64_t row, std::int64_t v) const {
        const T x = logits.as<T>()[row * tokens.spec.vocabulary + v];
        return static_cast<double>(x) / tokens.spec.temperature;
    }

    template <class T>
    void fill() {
        const head_spec& s = tokens.spec;
        T* const out = logits.as<T>();
        fill_normal(out, s.tokens * s.vocabulary, 2.5f, 3);
        std::mt19937 rng(5);
        std::normal_distribution<float> likely(10.0f, 2.0f);
        for (std::int64_t i = 0; i < s.tokens; ++i)
            out[i * s.vocabulary + tokens.targets[static_cast<std::size_t>(i)]] = static_cast<T>(likely(rng));
        in_halves(s.tokens, [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t row = first; row < last; ++row) measure<T>(row);
        });
    }

    template <class T>
    void measure(std::int64_t row) {
        const auto i = static_cast<std::size_t>(row);
        double top = z<T>(row, 0), sum = 0, weighted = 0;
        for (std::int64_t v = 1; v < tokens.spec.vocabulary; ++v) top = std::max(top, z<T>(row, v));
        for (std::int64_t v = 0; v < tokens.spec.vocabulary; ++v) {
            const double u = z<T>(row, v) - top;
            const double e = std::exp(u);
            sum += e;
            weighted += u * e;
        }
        tokens.log_sum[i] = top + std::log(sum);
        tokens.entropy[i] = std::log(sum) - weighted / sum;
        tokens.logp[i] = z<T>(row, tokens.targets[i]) - tokens.log_sum[i];
    }

    template <class T>
    void row_error(const T* gradient, std::int64_t row, double slope, double& worst, double& scale) const {
        const auto i = static_cast<std::size_t>(row);
        const double c = slope / tokens.spec.temperature;
        for (std::int64_t v = 0; v < tokens.spec.vocabulary; ++v) {
            const double p = std::exp(z<T>(row, v) - tokens.log_sum[i]);
            const double truth = c * ((v == tokens.targets[i] ? 1.0 : 0.0) - p);
            const double gap = std::abs(static_cast<double>(gradient[v]) - truth);
            if (!(gap <= worst)) worst = gap;
            scale = std::max(scale, std::abs(truth));
            if (std::isnan(gap)) return;
        }
    }
};

}  // namespace bench
