// Every entry point of the core with views of device memory, on every shape. Compiled by the tests, by nvcc and by NVRTC: no
// call of the host's may be reachable from a body, and no flag beyond -std=c++20 may be needed.
#if defined(__CUDACC__)
#include <grpo/exec/cuda.cuh>
#else
#include <grpo/exec/nvrtc.hpp>
#endif
#include <grpo/grpo.hpp>

#if defined(__CUDACC__)
using device = grpo::cuda;
#else
using device = grpo::nvrtc;
#endif

namespace {

// Somebody else's memory on a device.
template <class T>
struct place {
    T* tokens;      // n
    T* sequences;   // one per row
    T* more_tokens;
    std::uint8_t* mask;
    std::int64_t* offsets;
    std::int64_t rows;
    std::int64_t n;
};

template <class T>
auto tokens(const place<T>& at) { return grpo::view(at.tokens, at.n); }
template <class T>
auto more_tokens(const place<T>& at) { return grpo::view(at.more_tokens, at.n); }
template <class T>
auto sequences(const place<T>& at) { return grpo::view(at.sequences, at.rows); }

// f(shape) for the shapes that rows of tokens have.
template <class T, class F>
void on_shapes(const place<T>& at, F&& f) {
    const auto padded = grpo::padded(at.rows, at.rows > 0 ? at.n / at.rows : 0);
    const auto ragged = grpo::ragged(grpo::view<const std::int64_t>(at.offsets, at.rows + 1), at.n);
    const grpo::view<const std::uint8_t> mask(at.mask, at.n);
    f(padded);
    f(padded.where(mask));
    f(ragged);
    f(ragged.where(mask));
}

}  // namespace

template <class T, class Out>
const grpo::loss_result* losses(const device& gpu, const place<T>& at, const place<Out>& to) {
    const grpo::objective token_loss{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()};
    const grpo::objective sequence_loss{grpo::gspo{}, grpo::aggregation::sequence_mean()};
    const grpo::loss_result* result = nullptr;
    on_shapes(at, [&](const auto& shape) {
        const auto batch = grpo::batch(shape, grpo::logp(tokens(at)), grpo::logp_old(more_tokens(at)), grpo::logp_ref(tokens(at)),
                                       grpo::advantage(grpo::by_sequence(sequences(at))));
        result = grpo::evaluate(gpu, token_loss, batch, 1.0, grpo::d_logp(tokens(to)));
        result = grpo::evaluate(gpu, sequence_loss, batch, 1.0, grpo::d_logp(tokens(to)));
    });
    return result;
}

template <class T, class Out>
void statistics(const device& gpu, const place<T>& at, const place<Out>& to, grpo::view<grpo::group_report> report) {
    on_shapes(at, [&](const auto& shape) {
        grpo::group_normalised(gpu, shape, tokens(at), tokens(to), {.scale = grpo::group_scale::batch}, report);
        grpo::whiten(gpu, shape, tokens(at), tokens(to));
    });
    const grpo::gdpo_inputs<T> in{.reward = tokens(at), .weight = sequences(at)};
    grpo::gdpo(gpu, grpo::padded(1, at.n), in, more_tokens(to), tokens(to));
}

template <class T, class Out>
void recurrences(const device& gpu, const place<T>& at, const place<Out>& to) {
    const grpo::gae_inputs<T> in{.reward = tokens(at), .value = more_tokens(at)};
    const auto on = [&](const auto& shape) {
        grpo::gae(gpu, shape, in, {.gamma = 0.99}, tokens(to), more_tokens(to));
        grpo::vapo(gpu, shape, in, {}, tokens(to), more_tokens(to));
        grpo::discounted_returns(gpu, shape, 0.9, tokens(at), tokens(to));
    };
    on_shapes(at, [&](const auto& shape) {
        on(shape);
        grpo::remax(gpu, shape, tokens(at), sequences(at), tokens(to), more_tokens(to));
        grpo::reinforce_plus_plus(gpu, shape, tokens(at), tokens(to), more_tokens(to));
        grpo::spread_to_tokens(gpu, shape, sequences(at), tokens(to));
        grpo::place_outcome(gpu, shape, sequences(at), tokens(to));
        grpo::kl_in_reward(gpu, shape, grpo::kl{}, 0.1, tokens(at), tokens(at), more_tokens(at), tokens(to));
        grpo::teacher_advantage(gpu, shape, tokens(at), more_tokens(at), tokens(to));
    });
    on(grpo::time_major(at.rows, 1));
}

template <class T>
const double* supervision(const device& gpu, const place<T>& at, const grpo::reasoning_steps<T>& steps, T* normalised) {
    const auto groups = grpo::padded(1, at.rows);
    const grpo::view scratch(normalised, at.rows);
    const grpo::otb_inputs<T> otb{tokens(at), tokens(at), tokens(at)};
    on_shapes(at, [&](const auto& shape) {
        grpo::outcome_supervision(gpu, groups, shape, sequences(at), scratch, tokens(at));
        grpo::process_supervision(gpu, groups, shape, steps, grpo::view(normalised, steps.reward.size()), tokens(at));
        grpo::reinforce_plus_plus_baseline(gpu, groups, shape, sequences(at), scratch, tokens(at));
        grpo::optimal_token_baseline(gpu, groups, shape, otb, tokens(at), more_tokens(at), more_tokens(at));
    });
    return grpo::a_star_loss(gpu, grpo::padded(at.rows, at.n), 0.1, tokens(at), more_tokens(at), sequences(at), tokens(at));
}

template <class T, class W>
const grpo::correction_result* corrections(const device& gpu, const place<T>& at, const place<W>& to,
                                           const grpo::correction& rule, const grpo::rejection& band) {
    const grpo::correction_result* result = nullptr;
    on_shapes(at, [&](const auto& shape) {
        const auto batch = grpo::batch(shape, grpo::logp_old(tokens(at)), grpo::logp_rollout(more_tokens(at)));
        result = grpo::correction_weights(gpu, batch, rule, tokens(to));
        result = grpo::correction_weights_by_sequence(gpu, batch, rule, sequences(to));
        grpo::divide_weights(gpu, shape, 2.0, tokens(to));
        const grpo::rejection_result* rejected = grpo::reject(gpu, batch, band, tokens(to));
        rejected = grpo::reject(gpu, batch, band, tokens(to), more_tokens(to));
        (void)rejected;
    });
    return result;
}

template <class T>
void metrics(const device& gpu, const place<T>& at, const grpo::mismatch*& of_engines,
             const grpo::probability_fit*& probabilities, const grpo::value_fit*& values) {
    on_shapes(at, [&](const auto& shape) {
        const auto engines = grpo::batch(shape, grpo::logp_old(tokens(at)), grpo::logp_rollout(more_tokens(at)));
        of_engines = grpo::measure_mismatch(gpu, engines);
        probabilities = grpo::measure_probability_fit(gpu, engines);
        values = grpo::measure_value_fit(gpu, grpo::batch(shape, grpo::values(tokens(at)), grpo::returns(more_tokens(at))));
    });
}

template <class T, class Out>
const grpo::loss_result* preferences(const device& gpu, const place<T>& at, const place<Out>& to) {
    const grpo::loss_result* result = nullptr;
    on_shapes(at, [&](const auto& shape) {
        grpo::sequence_logp(gpu, shape, tokens(at), sequences(to), grpo::pooling::mean);
        grpo::weighted_sequence_logp(gpu, shape, tokens(at), more_tokens(at), sequences(to));
        grpo::spread(gpu, shape, sequences(at), tokens(to), grpo::pooling::mean);
        grpo::weighted_spread(gpu, shape, sequences(at), more_tokens(at), tokens(to));
        grpo::wpo_weights(gpu, shape, tokens(at), more_tokens(at), sequences(to));
        grpo::multiply_wpo_weights(gpu, shape, tokens(at), more_tokens(at), sequences(to));
        result = grpo::step_loss(gpu, shape, grpo::view(at.tokens, 2 * at.n), tokens(at), 1.0, grpo::view(to.tokens, 2 * at.n));
        const auto batch = grpo::batch(shape, grpo::logp(tokens(at)), grpo::logp_old(more_tokens(at)),
                                       grpo::advantage(grpo::by_sequence(sequences(at))));
        grpo::gradient_coefficient(gpu, grpo::clipped{}, batch, grpo::d_logp(tokens(to)));
    });
    const auto pairs = grpo::batch(grpo::padded(1, at.n), grpo::chosen(tokens(at)), grpo::rejected(more_tokens(at)),
                                   grpo::ref_chosen(tokens(at)), grpo::ref_rejected(more_tokens(at)));
    return grpo::evaluate(gpu, grpo::objective{grpo::dpo{.beta = 0.1}, grpo::aggregation::token_mean()}, pairs, 1.0,
                          grpo::d_chosen(tokens(to)), grpo::d_rejected(more_tokens(to)));
}

template <class T>
void recipes(const device& gpu, const place<T>& at, const place<T>& to, const grpo::recipe::advantage_rule& rule) {
    const auto groups = grpo::padded(1, at.rows);
    const grpo::recipe::token_inputs<T> in{.reward = sequences(at), .logp_old = tokens(at), .logp_ref = more_tokens(at)};
    const grpo::recipe::token_outputs<T> out{.advantage = tokens(to), .returns = more_tokens(to), .per_sequence = sequences(to)};
    on_shapes(at, [&](const auto& shape) { rule.by_token(gpu, groups, shape, in, out); });
    rule.by_sequence(gpu, groups, sequences(at), sequences(to));
}

template const grpo::loss_result* losses(const device&, const place<float>&, const place<float>&);
template const grpo::loss_result* losses(const device&, const place<double>&, const place<double>&);
template const grpo::loss_result* losses(const device&, const place<grpo::bfloat16>&, const place<float>&);
template const grpo::loss_result* losses(const device&, const place<grpo::float16>&, const place<float>&);
template void statistics(const device&, const place<float>&, const place<float>&, grpo::view<grpo::group_report>);
template void statistics(const device&, const place<grpo::bfloat16>&, const place<float>&, grpo::view<grpo::group_report>);
template void recurrences(const device&, const place<float>&, const place<float>&);
template void recurrences(const device&, const place<double>&, const place<double>&);
template const double* supervision(const device&, const place<float>&, const grpo::reasoning_steps<float>&, float*);
template const grpo::correction_result* corrections(const device&, const place<float>&, const place<float>&,
                                                    const grpo::correction&, const grpo::rejection&);
template void metrics(const device&, const place<float>&, const grpo::mismatch*&, const grpo::probability_fit*&,
                      const grpo::value_fit*&);
template const grpo::loss_result* preferences(const device&, const place<float>&, const place<float>&);
template void recipes(const device&, const place<float>&, const place<float>&, const grpo::recipe::advantage_rule&);
