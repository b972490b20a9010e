// Exact arithmetic for the calculator annotations of worked solutions: <<48/2=24>>.
#pragma once

#include <cctype>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace report {

// A fraction in lowest terms, den > 0. Operations give nothing where the exact result does not fit or has no value.
struct fraction {
    using integer = __int128;
    integer num = 0;
    integer den = 1;

    static integer magnitude(integer x) { return x < 0 ? -x : x; }

    static std::optional<integer> product(integer a, integer b) {
        constexpr integer most = ((integer{1} << 126) - 1);
        if (a != 0 && magnitude(b) > most / magnitude(a)) return std::nullopt;
        return a * b;
    }

    static std::optional<fraction> reduced(std::optional<integer> num, std::optional<integer> den) {
        if (!num || !den || *den == 0) return std::nullopt;
        integer a = magnitude(*num);
        integer b = magnitude(*den);
        while (b != 0) {
            const integer rest = a % b;
            a = b;
            b = rest;
        }
        if (*den < 0) a = -a;
        return fraction{*num / a, *den / a};
    }

    static std::optional<fraction> times(const fraction& x, const fraction& y) {
        const auto a = reduced(x.num, y.den);
        const auto b = reduced(y.num, x.den);
        return reduced(product(a->num, b->num), product(a->den, b->den));
    }
    static std::optional<fraction> over(const fraction& x, const fraction& y) {
        if (y.num == 0) return std::nullopt;
        return times(x, fraction{y.num < 0 ? -y.den : y.den, magnitude(y.num)});
    }
    static std::optional<fraction> plus(const fraction& x, const fraction& y) {
        const auto scale = reduced(x.den, y.den);
        const auto a = product(x.num, scale->den);
        const auto b = product(y.num, scale->num);
        if (!a || !b) return std::nullopt;
        return reduced(*a + *b, product(x.den, scale->den));
    }

    fraction negative() const { return {-num, den}; }
    long double approximate() const { return static_cast<long double>(num) / static_cast<long double>(den); }
    friend bool operator==(const fraction&, const fraction&) = default;
};

// Sums, products, quotients, parentheses, signs, decimals with thousands commas, and % for a hundredth.
class calculator {
public:
    // The value of the whole text, or nothing where it is not such an expression.
    static std::optional<fraction> value(std::string_view text) {
        calculator c(text);
        const auto x = c.sum(0);
        c.skip();
        return c.rest_.empty() ? x : std::nullopt;
    }

private:
    static constexpr int deepest = 100;
    static constexpr int most_digits = 18;

    explicit calculator(std::string_view text) : rest_(text) {}

    void skip() {
        while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
    }
    char take(std::string_view any_of) {
        skip();
        if (rest_.empty() || any_of.find(rest_.front()) == std::string_view::npos) return '\0';
        const char c = rest_.front();
        rest_.remove_prefix(1);
        return c;
    }

    std::optional<fraction> sum(int depth) {
        auto x = product(depth);
        while (x) {
            const char sign = take("+-");
            if (sign == '\0') break;
            const auto y = product(depth);
            if (!y) return std::nullopt;
            x = fraction::plus(*x, sign == '-' ? y->negative() : *y);
        }
        return x;
    }
    std::optional<fraction> product(int depth) {
        auto x = signed_one(depth);
        while (x) {
            const char sign = take("*/");
            if (sign == '\0') break;
            const auto y = signed_one(depth);
            if (!y) return std::nullopt;
            x = sign == '*' ? fraction::times(*x, *y) : fraction::over(*x, *y);
        }
        return x;
    }
    std::optional<fraction> signed_one(int depth) {
        bool negative = false;
        while (const char sign = take("+-")) negative ^= sign == '-';
        auto x = take("(") != '\0' ? inner(depth + 1) : number();
        while (x && take("%") != '\0') x = fraction::over(*x, {100, 1});
        if (!x || !negative) return x;
        return x->negative();
    }
    std::optional<fraction> inner(int depth) {
        if (depth > deepest) return std::nullopt;
        const auto x = sum(depth);
        return take(")") != '\0' ? x : std::nullopt;
    }
    // Decimals after the 18th place are cut off: below anything that a comparison looks at.
    std::optional<fraction> number() {
        skip();
        fraction x;
        bool any = false;
        bool decimals = false;
        int digits = 0;
        for (; !rest_.empty(); rest_.remove_prefix(1)) {
            const char c = rest_.front();
            if (c == '.' && !decimals) {
                decimals = true;
                digits = 0;
            } else if (std::isdigit(static_cast<unsigned char>(c))) {
                any = true;
                if (digits == most_digits && decimals) continue;
                if (++digits > most_digits) return std::nullopt;
                x.num = x.num * 10 + (c - '0');
                if (decimals) x.den *= 10;
            } else if (c != ',' || !any || decimals) {
                break;
            }
        }
        if (!any) return std::nullopt;
        return fraction::reduced(x.num, x.den);
    }

    std::string_view rest_;
};

enum class verdict { right, wrong, unreadable };

// Whether the part claimed after "=" is what the exact value rounds to. An integer must be met exactly; a number with
// decimals may be off by half a unit of its last one. Either may be off by 1e-9 of the value, as a binary double is.
inline bool confirms(const fraction& value, const fraction& claim, std::string_view shown) {
    if (value == claim) return true;
    const auto difference = fraction::plus(value, claim.negative());
    if (!difference) return false;
    const long double off = difference->num < 0 ? -difference->approximate() : difference->approximate();
    const long double size = value.num < 0 ? -value.approximate() : value.approximate();
    if (off <= 1e-9L * size) return true;
    const auto point = shown.find('.');
    if (point == std::string_view::npos || shown.find_first_not_of("0123456789.,- ") != std::string_view::npos)
        return false;
    long double unit = 1;
    for (const char c : shown.substr(point)) unit /= std::isdigit(static_cast<unsigned char>(c)) ? 10 : 1;
    return unit < 1 && off <= unit / 2 * (1 + 1e-12L);
}

// An annotation without its brackets: "a=b", or a chain "a=b=c" of which every part must equal the first.
inline verdict check_annotation(std::string_view text) {
    std::optional<fraction> first;
    bool right = true;
    int parts = 0;
    for (bool more = true; more; ++parts) {
        const auto equals = text.find('=');
        more = equals != std::string_view::npos;
        const std::string_view part = text.substr(0, equals);
        const auto x = calculator::value(part);
        if (!x) return verdict::unreadable;
        if (parts == 0) first = x;
        right = right && confirms(*first, *x, part);
        if (more) text.remove_prefix(equals + 1);
    }
    if (parts < 2) return verdict::unreadable;
    return right ? verdict::right : verdict::wrong;
}

// One spelling for equal answers: decimal numbers in lowest terms ("7.50", "$7.5" and "7.5" agree), anything else
// without the blanks around it.
inline std::string canonical(std::string_view answer) {
    const auto trim = [&](std::string_view any_of) {
        while (!answer.empty() && any_of.find(answer.front()) != std::string_view::npos) answer.remove_prefix(1);
        while (!answer.empty() && any_of.find(answer.back()) != std::string_view::npos) answer.remove_suffix(1);
    };
    trim(" \t\r\n");
    const std::string plain(answer);
    trim("$. ");
    const auto x = calculator::value(answer);
    if (!x || answer.find_first_of("+*/(") != std::string_view::npos) return plain;
    const auto text = [](fraction::integer n) {
        std::string digits;
        for (auto rest = fraction::magnitude(n); rest != 0; rest /= 10)
            digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(rest % 10)));
        return (n < 0 ? "-" : "") + (digits.empty() ? "0" : digits);
    };
    return x->den == 1 ? text(x->num) : text(x->num) + "/" + text(x->den);
}

}  // namespace report
