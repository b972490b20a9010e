// Arithmetic expressions as trees: reading, writing, exact values, and the one next step of working them out.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "../support/arithmetic.hpp"

namespace calculator {

using support::fraction;

// A number, or an operation (one of + - * /) on two operands.
struct expression {
    char operation = '\0';
    fraction number;
    std::vector<expression> operands;

    static expression of(const fraction& x) { return {'\0', x, {}}; }
    static expression of(char operation, expression x, expression y) {
        expression e{operation, {}, {}};
        e.operands.reserve(2);
        e.operands.push_back(std::move(x));
        e.operands.push_back(std::move(y));
        return e;
    }

    bool is_number() const { return operation == '\0'; }
    const expression& left() const { return operands[0]; }
    const expression& right() const { return operands[1]; }
    int precedence() const { return is_number() ? 2 : operation == '*' || operation == '/' ? 1 : 0; }
};

namespace detail {

// What a parse makes: a tree, in which a percentage is its decimal number and nothing has a sign.
struct trees {
    using value = expression;
    std::optional<expression> number(const fraction& x) const { return expression::of(x); }
    std::optional<expression> negative(const expression&) const { return std::nullopt; }
    std::optional<expression> hundredth(const expression& x) const {
        const auto part = x.is_number() ? fraction::over(x.number, {100, 1}) : std::nullopt;
        if (!part) return std::nullopt;
        return expression::of(*part);
    }
    std::optional<expression> binary(char operation, expression x, expression y) const {
        return expression::of(operation, std::move(x), std::move(y));
    }
};

}  // namespace detail

// Texts longer than this are no expressions: a tree is as deep as its text is long, and is walked recursively.
inline constexpr std::size_t most_characters = 400;

// The tree of a text, or nothing where it is no expression.
inline std::optional<expression> parse(std::string_view text) {
    if (text.size() > most_characters) return std::nullopt;
    return support::arithmetic<detail::trees>::parse(text);
}

// The exact value, or nothing: a division by zero, or too large a fraction.
inline std::optional<fraction> value(const expression& e) {
    if (e.is_number()) return e.number;
    const auto x = value(e.left());
    const auto y = value(e.right());
    if (!x || !y) return std::nullopt;
    return support::values{}.binary(e.operation, *x, *y);
}

inline int operations(const expression& e) {
    return e.is_number() ? 0 : 1 + operations(e.left()) + operations(e.right());
}

// A number of at most two decimals as it is written: "7.5", "-3". Nothing for other fractions.
inline std::optional<std::string> text(const fraction& x) {
    if (x.den <= 0 || 100 % x.den != 0) return std::nullopt;
    const auto whole = fraction::magnitude(x.num) / x.den;
    std::string digits = (x.num < 0 ? "-" : "") + support::digits_of(whole);
    const auto hundredths = (fraction::magnitude(x.num) - whole * x.den) * (100 / x.den);
    if (hundredths == 0) return digits;
    digits += '.';
    digits += static_cast<char>('0' + static_cast<int>(hundredths / 10));
    if (hundredths % 10 != 0) digits += static_cast<char>('0' + static_cast<int>(hundredths % 10));
    return digits;
}

// The one way to write a tree: parentheses only where another tree would be read without them.
inline std::optional<std::string> text(const expression& e) {
    if (e.is_number()) return text(e.number);
    auto x = text(e.left());
    auto y = text(e.right());
    if (!x || !y) return std::nullopt;
    if (e.left().precedence() < e.precedence()) x = "(" + *x + ")";
    if (e.right().precedence() <= e.precedence()) y = "(" + *y + ")";
    return *x + e.operation + *y;
}

namespace detail {

struct candidate {
    expression* node = nullptr;
    std::pair<int, int> rank{-1, -1};  // depth of parentheses, precedence
};

// Walks from left to right, so that the first of equal rank is kept.
inline void find_next(expression& e, int depth, candidate& best) {
    if (e.is_number()) return;
    if (e.left().is_number() && e.right().is_number()) {
        const std::pair<int, int> rank{depth, e.precedence()};
        if (rank > best.rank) best = {&e, rank};
        return;
    }
    find_next(e.operands[0], depth + (e.left().precedence() < e.precedence() ? 1 : 0), best);
    find_next(e.operands[1], depth + (e.right().precedence() <= e.precedence() ? 1 : 0), best);
}

}  // namespace detail

// Replaces one operation on two numbers by its result: inside parentheses first, then * and /, then leftmost first.
// False, and the tree as it was, where there is none or it has no exact result.
inline bool reduce(expression& e) {
    detail::candidate next;
    detail::find_next(e, 0, next);
    if (next.node == nullptr) return false;
    const auto x = value(*next.node);
    if (!x) return false;
    *next.node = expression::of(*x);
    return true;
}

}  // namespace calculator
