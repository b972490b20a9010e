// The task: a prompt such as "12+7*3=" is continued by its rewrites, one operation less in each, "12+21=33", and an end
// token. Tokens are characters.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "expression.hpp"

namespace calculator {

using token = std::int64_t;

// One token a character, then `end` and `pad`.
struct vocabulary {
    static constexpr std::string_view characters = "0123456789+-*/().=";
    static constexpr token end = 18;
    static constexpr token pad = 19;
    static constexpr token size = 20;

    // The tokens of a text. Characters that the vocabulary lacks are left out.
    static std::vector<token> encode(std::string_view text, bool ended = false) {
        std::vector<token> tokens;
        tokens.reserve(text.size() + 1);
        for (const char c : text) {
            const auto at = characters.find(c);
            if (at != std::string_view::npos) tokens.push_back(static_cast<token>(at));
        }
        if (ended) tokens.push_back(end);
        return tokens;
    }

    // The text before the end token. A token that stands for no character is shown as '?'.
    static std::string decode(std::span<const token> tokens) {
        std::string text;
        for (const token t : tokens) {
            if (t == end) break;
            text += t >= 0 && t < end ? characters[static_cast<std::size_t>(t)] : '?';
        }
        return text;
    }
};

static_assert(vocabulary::characters.size() == vocabulary::end);

struct problem {
    std::string prompt;    // "12+7*3="
    std::string response;  // "12+21=33", to be followed by the end token
    fraction value;
    int operations = 0;
};

// Why an expression makes no problem.
enum class obstacle { no_operation, no_value, negative, large, decimals };
inline constexpr std::size_t obstacle_count = 5;
inline constexpr std::array<const char*, obstacle_count> obstacle_names{
    "without an operation", "without a value", "with a negative number", "with a number of 100000 or more",
    "with more than two decimals"};

namespace detail {

inline constexpr int number_limit = 100000;

inline std::optional<obstacle> number_obstacle(const expression& e) {
    if (!e.is_number()) {
        const auto x = number_obstacle(e.left());
        return x ? x : number_obstacle(e.right());
    }
    if (e.number.num < 0) return obstacle::negative;
    if (e.number.num / e.number.den >= number_limit) return obstacle::large;
    if (!text(e.number)) return obstacle::decimals;
    return std::nullopt;
}

}  // namespace detail

// The problem of working out an expression: every number on the way is at least 0, below 100000, and has at most two
// decimals. Nothing where it is not so, with the reason in `why`.
inline std::optional<problem> pose(expression e, obstacle* why = nullptr) {
    const auto refused = [why](obstacle o) {
        if (why != nullptr) *why = o;
        return std::nullopt;
    };
    if (e.is_number()) return refused(obstacle::no_operation);
    problem p;
    p.operations = operations(e);
    for (int step = 0; step <= p.operations; ++step) {
        if (step > 0 && !reduce(e)) return refused(obstacle::no_value);
        if (const auto o = detail::number_obstacle(e)) return refused(*o);
        const std::string shown = *text(e);
        if (step == 0) p.prompt = shown + "=";
        if (step > 1) p.response += "=";
        if (step > 0) p.response += shown;
    }
    p.value = e.number;
    return p;
}

// Where problems come from. The training stream has no state: problem k of a seed is always the same.
class source {
public:
    source() = default;
    source(const source&) = delete;
    source& operator=(const source&) = delete;
    virtual ~source() = default;

    // Problems first, first + 1, ... of the seed's training stream.
    virtual std::vector<problem> train(std::uint64_t seed, std::int64_t first, std::int64_t count) const = 0;
    // The first `count` held-out problems, all different, none of which is ever in a training stream. bad_input where
    // there are not so many.
    virtual std::vector<problem> held_out(std::int64_t count) const = 0;
    // How many held-out problems there are; 0: as many as one asks for.
    virtual std::int64_t held_out_count() const = 0;
    // The longest prompt and the longest response with its end token, in tokens: what a model has to hold.
    virtual std::int64_t longest_prompt() const = 0;
    virtual std::int64_t longest_response() const = 0;
};

}  // namespace calculator
