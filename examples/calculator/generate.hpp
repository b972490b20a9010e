// Generated problems of adjustable difficulty.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "../support/error.hpp"
#include "../support/random.hpp"
#include "task.hpp"

namespace calculator {

using support::choices;
using support::mixed;

struct difficulty {
    std::array<double, 4> lengths{0.4, 0.6, 0.0, 0.0};      // shares of problems of 1, 2, 3 and 4 operations
    std::array<double, 4> operations{0.35, 0.35, 0.2, 0.1}; // shares of + - * /
    double parentheses = 0.0;          // share with parentheses, of problems of 2 or more operations
    std::int64_t largest_term = 20;    // numbers in sums and differences: 1 to this
    std::int64_t largest_factor = 9;   // factors, divisors and quotients: 2 to this
    std::int64_t largest_value = 200;  // of every result on the way
    std::int64_t held_out_share = 8;   // one expression in so many is held out
};

// Problems as `difficulty` has them: integers, no negative result, divisions without remainder.
class generated final : public source {
public:
    // bad_input for difficulties that no problem meets.
    explicit generated(const difficulty& d = {}) : d_(d) {
        require(d.largest_term >= 1 && d.largest_term <= d.largest_value, "largest_term", d.largest_term, 1,
                d.largest_value);
        require(d.largest_factor >= 2 && d.largest_factor <= 999, "largest_factor", d.largest_factor, 2, 999);
        require(d.largest_value >= 4 && d.largest_value < 100000, "largest_value", d.largest_value, 4, 99999);
        require(d.held_out_share >= 2, "held_out_share", d.held_out_share, 2, most_share);
        if (!(d.parentheses >= 0) || d.parentheses > 1)
            throw support::bad_input(fmt::format("difficulty: parentheses is {}, not from 0 to 1", d.parentheses));
        shares("lengths", d.lengths);
        shares("operations", d.operations);
    }

    // bad_input where the stream reaches a kind of problem that the options do not allow to make.
    std::vector<problem> train(std::uint64_t seed, std::int64_t first, std::int64_t count) const override {
        std::vector<problem> problems;
        for (std::int64_t k = first; k < first + count; ++k)
            problems.push_back(draw(mixed({training_stream, seed, static_cast<std::uint64_t>(k)}), false));
        return problems;
    }

    std::vector<problem> held_out(std::int64_t count) const override {
        std::vector<problem> problems;
        std::unordered_set<std::string> seen;
        const std::int64_t draws = 1000 + 100 * count;
        for (std::int64_t k = 0; k < draws && static_cast<std::int64_t>(problems.size()) < count; ++k) {
            problem p = draw(mixed({held_out_stream, static_cast<std::uint64_t>(k)}), true);
            if (seen.insert(p.prompt).second) problems.push_back(std::move(p));
        }
        if (static_cast<std::int64_t>(problems.size()) < count) {
            throw support::bad_input(
                fmt::format("held-out problems: {} are asked for, but so easy a task has about {} different ones",
                            count, problems.size()));
        }
        return problems;
    }
    std::int64_t held_out_count() const override { return 0; }

    // Whether an expression never occurs in training: decided by its text alone.
    bool is_held_out(const problem& p) const {
        return mixed(std::string_view(p.prompt)) % static_cast<std::uint64_t>(d_.held_out_share) == 0;
    }

    std::int64_t longest_prompt() const override {
        const std::int64_t n = most_operations();
        return (n + 1) * most_digits() + n + 2 * std::max<std::int64_t>(0, n - 1) + 1;
    }
    std::int64_t longest_response() const override {
        std::int64_t length = 0;
        for (std::int64_t n = most_operations() - 1; n >= 0; --n)
            length += (n + 1) * most_digits() + n + 2 * std::max<std::int64_t>(0, n - 1) + 1;
        return length;
    }

private:
    static constexpr std::uint64_t training_stream = 1;
    static constexpr std::uint64_t held_out_stream = 2;
    static constexpr std::int64_t most_share = 1000000;
    static constexpr int most_attempts = 200000;
    static constexpr std::string_view signs = "+-*/";

    static void require(bool met, const char* name, std::int64_t got, std::int64_t least, std::int64_t most) {
        if (!met)
            throw support::bad_input(fmt::format("difficulty: {} is {}, not from {} to {}", name, got, least, most));
    }
    static void shares(const char* name, const std::array<double, 4>& all) {
        double sum = 0;
        for (const double x : all) sum += x >= 0 ? x : -1e300;
        if (!(sum > 0) || sum > 1e300)
            throw support::bad_input(
                fmt::format("difficulty: {} are {}, {}, {}, {}; they must be at least 0 and not "
                            "all 0",
                            name, all[0], all[1], all[2], all[3]));
    }

    std::int64_t most_operations() const {
        std::int64_t n = 0;
        for (std::size_t i = 0; i < d_.lengths.size(); ++i)
            if (d_.lengths[i] > 0) n = static_cast<std::int64_t>(i) + 1;
        return n;
    }
    std::int64_t most_digits() const { return static_cast<std::int64_t>(std::to_string(largest_number()).size()); }
    std::int64_t largest_number() const { return std::max({d_.largest_term, d_.largest_factor, d_.largest_value}); }

    problem draw(std::uint64_t seed, bool held_out) const {
        choices random(seed);
        const auto count = static_cast<int>(random.index(d_.lengths)) + 1;
        const bool parentheses = count > 1 && random.unit() < d_.parentheses;
        for (int attempt = 0; attempt < most_attempts; ++attempt) {
            const auto e = tree(random, count, d_.largest_term);
            if (!e) continue;
            auto p = pose(*e);
            if (!p || (p->prompt.find('(') != std::string::npos) != parentheses) continue;
            if (is_held_out(*p) == held_out) return *std::move(p);
        }
        throw support::bad_input(
            fmt::format("difficulty: no problem of {} operations {} parentheses was found within "
                        "{} attempts; allow more operations or larger numbers",
                        count, parentheses ? "with" : "without", most_attempts));
    }

    using maybe = std::optional<expression>;

    // A tree of so many operations, or nothing where the dice make none that is allowed.
    maybe tree(choices& random, int count, std::int64_t largest_leaf) const {
        if (count == 0) return leaf(random.integer(1, largest_leaf));
        const char sign = signs[random.index(d_.operations)];
        const int on_left = static_cast<int>(random.integer(0, count - 1));
        const int on_right = count - 1 - on_left;
        if (sign == '/') return quotient(random, on_left, on_right);
        const std::int64_t leaves = sign == '*' ? d_.largest_factor : d_.largest_term;
        auto x = tree(random, on_left, leaves);
        auto y = tree(random, on_right, leaves);
        if (!x || !y || (sign == '*' && !(factor(*x) && factor(*y)))) return std::nullopt;
        return allowed(expression::of(sign, *std::move(x), *std::move(y)));
    }

    // A dividend that is a number is made from divisor and quotient.
    maybe quotient(choices& random, int on_left, int on_right) const {
        auto y = tree(random, on_right, d_.largest_factor);
        if (!y || !factor(*y)) return std::nullopt;
        auto x = on_left > 0 ? tree(random, on_left, d_.largest_term)
                             : leaf(integer_value(*y) * random.integer(2, d_.largest_factor));
        if (!x) return std::nullopt;
        const expression e = expression::of('/', *std::move(x), *std::move(y));
        const auto result = value(e);
        const bool exact = result && result->den == 1 && result->num >= 2 && result->num <= d_.largest_factor;
        return exact ? allowed(e) : std::nullopt;
    }

    static expression leaf(std::int64_t x) { return expression::of(fraction{x, 1}); }
    static std::int64_t integer_value(const expression& e) { return static_cast<std::int64_t>(value(e)->num); }
    bool factor(const expression& e) const {
        const auto x = value(e);
        return x && x->num >= 2 && x->num <= d_.largest_factor;
    }
    maybe allowed(const expression& e) const {
        const auto x = value(e);
        const bool inside = x && x->den == 1 && x->num >= 0 && x->num <= d_.largest_value;
        return inside ? maybe(e) : std::nullopt;
    }

    difficulty d_;
};

}  // namespace calculator
