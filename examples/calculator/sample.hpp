// Sampling from the model, a token at a time, with keys and values kept.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <grpo/grpo.hpp>

#include "../support/random.hpp"
#include "model.hpp"
#include "workers.hpp"

namespace calculator {

struct response {
    std::vector<token> tokens;  // up to and with the end token where there is one
    std::vector<float> logp;    // of each, under the distribution that was sampled from

    bool ended() const { return !tokens.empty() && tokens.back() == vocabulary::end; }
};

struct sampling {
    double temperature = 1.0;  // 0: the likeliest token
    std::int64_t longest = 32;
    std::uint64_t key = 0;  // what is drawn is a function of this, the response's number and the token's
};

namespace detail {

// Keys and values of one block for some rows: keys [rows, heads, size, context], values [rows, heads, context, size].
struct memory {
    at::Tensor keys;
    at::Tensor values;
};

// out[row] = Σ_t softmax(q·k_t + distance) v_t of one new token in each row, which is the last of its row's `lengths`.
inline void attend(const at::Tensor& query, const memory& m, const at::Tensor& distance,
                   const std::vector<std::int64_t>& lengths, at::Tensor& out) {
    const std::int64_t heads = m.keys.size(1);
    const std::int64_t size = m.keys.size(2);
    const std::int64_t context = m.keys.size(3);
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    std::vector<float> score(static_cast<std::size_t>(context));
    float* const s = score.data();
    for (std::int64_t row = 0; row < static_cast<std::int64_t>(lengths.size()); ++row) {
        const std::int64_t n = lengths[static_cast<std::size_t>(row)];
        for (std::int64_t h = 0; h < heads; ++h) {
            const float* const q = query.data_ptr<float>() + (row * heads + h) * size;
            const float* const k = m.keys.data_ptr<float>() + (row * heads + h) * size * context;
            const float* const v = m.values.data_ptr<float>() + (row * heads + h) * size * context;
            const float* const far = distance.data_ptr<float>() + h * distance.size(1);
            float* const o = out.data_ptr<float>() + (row * heads + h) * size;
            for (std::int64_t t = 0; t < n; ++t) s[t] = 0;
            for (std::int64_t d = 0; d < size; ++d) {
                const float x = q[d] * scale;
                for (std::int64_t t = 0; t < n; ++t) s[t] += x * k[d * context + t];
            }
            float top = -INFINITY;
            for (std::int64_t t = 0; t < n; ++t) top = std::max(top, s[t] += far[n - 1 - t]);
            float sum = 0;
            for (std::int64_t t = 0; t < n; ++t) sum += s[t] = std::exp(s[t] - top);
            for (std::int64_t d = 0; d < size; ++d) o[d] = 0;
            for (std::int64_t t = 0; t < n; ++t) {
                const float p = s[t] / sum;
                for (std::int64_t d = 0; d < size; ++d) o[d] += p * v[t * size + d];
            }
        }
    }
}

// Some rows being continued. Rows that have ended are dropped from time to time.
class continuation {
public:
    continuation(transformer& model, const sampling& how) : model_(model), how_(how) {}

    // Continues each of `prompts` `copies` times; response i of them has the number first + i.
    std::vector<response> of(std::span<const std::vector<token>> prompts, std::int64_t copies, std::uint64_t first) {
        const c10::InferenceMode inference;
        begin(prompts, copies);
        std::vector<response> out(rows_.size());
        for (std::int64_t k = 0; k < how_.longest && !rows_.empty(); ++k) {
            const at::Tensor logits = step(k > 0);
            choose(logits, out, first);
            drop_ended(out);
        }
        return out;
    }

private:
    struct row {
        std::size_t place;
        std::int64_t length;  // tokens that the memory holds or is about to
        token last;
    };

    // Everything of the prompts but their last tokens goes through the model once, for all copies.
    void begin(std::span<const std::vector<token>> prompts, std::int64_t copies) {
        std::size_t longest = 0;
        for (const auto& p : prompts) longest = std::max(longest, p.size());
        const at::Tensor ids =
            torch::full({static_cast<std::int64_t>(prompts.size()), static_cast<std::int64_t>(longest)},
                        vocabulary::pad, torch::kLong);
        for (std::size_t i = 0; i < prompts.size(); ++i) {
            std::copy(prompts[i].begin(), prompts[i].end(), ids.data_ptr<std::int64_t>() + i * longest);
            for (std::int64_t c = 0; c < copies; ++c) {
                rows_.push_back({rows_.size(), static_cast<std::int64_t>(prompts[i].size()), prompts[i].back()});
            }
        }
        capacity_ = std::min(model_.options.context, static_cast<std::int64_t>(longest) + how_.longest);
        fill(ids, copies);
    }

    void fill(const at::Tensor& ids, std::int64_t copies) {
        const auto length = ids.size(1);
        const auto heads = model_.options.heads;
        const auto size = model_.options.width / heads;
        const at::Tensor place = torch::arange(length);
        const at::Tensor back = place.unsqueeze(1) - place.unsqueeze(0);
        const at::Tensor future = torch::zeros({length, length}).masked_fill_(back.lt(0), -INFINITY);
        const at::Tensor steps = back.clamp_min(0).view({-1});
        at::Tensor x = model_.tokens->forward(ids) + model_.positions->forward(place);
        for (const auto& b : model_.blocks) {
            const at::Tensor all =
                b->qkv->forward(b->attention_norm->forward(x)).view({ids.size(0), length, 3, heads, size});
            memory m{torch::zeros({ids.size(0), heads, size, capacity_}),
                     torch::zeros({ids.size(0), heads, capacity_, size})};
            m.keys.narrow(3, 0, length).copy_(all.select(2, 1).permute({0, 2, 3, 1}));
            m.values.narrow(2, 0, length).copy_(all.select(2, 2).permute({0, 2, 1, 3}));
            if (copies > 1) m = {m.keys.repeat_interleave(copies, 0), m.values.repeat_interleave(copies, 0)};
            memories_.push_back(m);
            x = b->forward(x, steps, future);
        }
    }

    // Logits of the next token of each row.
    at::Tensor step(bool append) {
        const auto count = static_cast<std::int64_t>(rows_.size());
        const auto heads = model_.options.heads;
        const auto size = model_.options.width / heads;
        const at::Tensor ids = torch::empty({count}, torch::kLong);
        const at::Tensor place = torch::empty({count}, torch::kLong);
        std::vector<std::int64_t> lengths;
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            ids.data_ptr<std::int64_t>()[i] = rows_[i].last;
            place.data_ptr<std::int64_t>()[i] = rows_[i].length - 1;
            lengths.push_back(rows_[i].length);
        }
        at::Tensor x = model_.tokens->forward(ids) + model_.positions->forward(place);
        at::Tensor mixed = torch::empty({count, model_.options.width});
        for (std::size_t k = 0; k < memories_.size(); ++k) {
            block& b = *model_.blocks[k];
            const at::Tensor all = b.qkv->forward(b.attention_norm->forward(x)).view({count, 3, heads, size});
            const at::Tensor query = all.select(1, 0).contiguous();
            if (append) remember(memories_[k], all, lengths);
            attend(query, memories_[k], b.distance, lengths, mixed);
            x = x + b.joined->forward(mixed);
            x = x + b.perceptron(x);
        }
        return model_.head->forward(model_.norm->forward(x)).contiguous();
    }

    static void remember(memory& m, const at::Tensor& all, const std::vector<std::int64_t>& lengths) {
        const std::int64_t heads = m.keys.size(1);
        const std::int64_t size = m.keys.size(2);
        const std::int64_t context = m.keys.size(3);
        for (std::int64_t i = 0; i < static_cast<std::int64_t>(lengths.size()); ++i) {
            const std::int64_t t = lengths[static_cast<std::size_t>(i)] - 1;
            const float* const k = all.data_ptr<float>() + (i * 3 + 1) * heads * size;
            const float* const v = k + heads * size;
            float* const keys = m.keys.data_ptr<float>() + i * heads * size * context;
            float* const values = m.values.data_ptr<float>() + i * heads * size * context;
            for (std::int64_t d = 0; d < heads * size; ++d) keys[d * context + t] = k[d];
            for (std::int64_t h = 0; h < heads; ++h)
                std::copy(v + h * size, v + (h + 1) * size, values + (h * context + t) * size);
        }
    }

    void choose(const at::Tensor& logits, std::vector<response>& out, std::uint64_t first) {
        const auto count = static_cast<std::int64_t>(rows_.size());
        const double temperature = how_.temperature > 0 ? how_.temperature : 1.0;
        const at::Tensor probability = (logits / temperature).softmax(-1);
        std::vector<std::int64_t> chosen(rows_.size());
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            const float* const p = probability.data_ptr<float>() + i * vocabulary::size;
            const auto& so_far = out[rows_[i].place].tokens;
            chosen[i] = how_.temperature > 0
                            ? draw(p, support::mixed({how_.key, first + rows_[i].place, so_far.size()}))
                            : static_cast<std::int64_t>(std::max_element(p, p + vocabulary::size) - p);
        }
        std::vector<float> logp(rows_.size());
        const grpo::view<const float> z(logits.data_ptr<float>(), logits.numel());
        grpo::token_logp(grpo::serial{}, grpo::logits(z, count, vocabulary::size), chosen, {.temperature = temperature},
                         grpo::view<float>(logp));
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            out[rows_[i].place].tokens.push_back(chosen[i]);
            out[rows_[i].place].logp.push_back(logp[i]);
            rows_[i].last = chosen[i];
            ++rows_[i].length;
        }
    }

    static std::int64_t draw(const float* p, std::uint64_t bits) {
        double left = static_cast<double>(bits >> 11) * 0x1p-53;
        std::int64_t last = 0;
        for (std::int64_t k = 0; k < vocabulary::size; ++k) {
            if (!(p[k] > 0)) continue;
            last = k;
            if ((left -= static_cast<double>(p[k])) < 0) return k;
        }
        return last;
    }

    // Leaves rows out as soon as a quarter has ended.
    void drop_ended(const std::vector<response>& out) {
        std::vector<std::int64_t> alive;
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            const bool full = rows_[i].length > capacity_;
            if (rows_[i].last != vocabulary::end && !full) alive.push_back(static_cast<std::int64_t>(i));
        }
        static_cast<void>(out);
        if (alive.size() == rows_.size()) return;
        const at::Tensor index = torch::tensor(alive, torch::kLong);
        if (!alive.empty())
            for (memory& m : memories_) m = {m.keys.index_select(0, index), m.values.index_select(0, index)};
        std::vector<row> left;
        for (const std::int64_t i : alive) left.push_back(rows_[static_cast<std::size_t>(i)]);
        rows_ = std::move(left);
    }

    transformer& model_;
    const sampling& how_;
    std::int64_t capacity_ = 0;
    std::vector<row> rows_;
    std::vector<memory> memories_;
};

}  // namespace detail

// `copies` responses to each problem, problem after problem. The same for any number of threads.
inline std::vector<response> sample(transformer& model, std::span<const problem> problems, std::int64_t copies,
                                    const sampling& how, workers& crew) {
    std::vector<std::vector<token>> prompts;
    for (const problem& p : problems) prompts.push_back(vocabulary::encode(p.prompt));
    constexpr std::int64_t rows_of_a_piece = 128;
    const auto piece = static_cast<std::size_t>(std::max<std::int64_t>(1, rows_of_a_piece / copies));
    const auto each = static_cast<std::size_t>(copies);
    std::vector<response> all(prompts.size() * each);
    crew.each((prompts.size() + piece - 1) / piece, [&](std::size_t k) {
        const std::size_t first = k * piece;
        const auto part = std::span(prompts).subspan(first, std::min(piece, prompts.size() - first));
        auto made = detail::continuation(model, how).of(part, copies, first * each);
        std::move(made.begin(), made.end(), all.begin() + static_cast<std::ptrdiff_t>(first * each));
    });
    return all;
}

}  // namespace calculator
