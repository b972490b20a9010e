// Exact arithmetic: fractions, and one parser of written expressions for everything that reads them.
#pragma once

#include <cctype>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace support {

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

// An integer's decimal digits.
inline std::string digits_of(fraction::integer n) {
    std::string digits;
    for (auto rest = fraction::magnitude(n); rest != 0; rest /= 10)
        digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(rest % 10)));
    return (n < 0 ? "-" : "") + (digits.empty() ? "0" : digits);
}

// The numbers themselves: what a parse of an expression makes where its value is wanted.
struct values {
    using value = fraction;
    std::optional<fraction> number(const fraction& x) const { return x; }
    std::optional<fraction> negative(const fraction& x) const { return x.negative(); }
    std::optional<fraction> hundredth(const fraction& x) const { return fraction::over(x, {100, 1}); }
    std::optional<fraction> binary(char operation, const fraction& x, const fraction& y) const {
        switch (operation) {
            case '+':
                return fraction::plus(x, y);
            case '-':
                return fraction::plus(x, y.negative());
            case '*':
                return fraction::times(x, y);
            default:
                return fraction::over(x, y);
        }
    }
};

// Sums, products, quotients, parentheses, signs, decimals with thousands commas, and % for a hundredth. What is made of
// them is the algebra's matter: a value, or a tree.
template <class Algebra>
class arithmetic {
public:
    using value = typename Algebra::value;

    // The meaning of the whole text, or nothing where it is not such an expression.
    static std::optional<value> parse(std::string_view text, const Algebra& algebra = {}) {
        arithmetic a(text, algebra);
        auto x = a.sum(0);
        a.skip();
        return a.rest_.empty() ? std::move(x) : std::nullopt;
    }

private:
    static constexpr int deepest = 100;
    static constexpr int most_digits = 18;

    arithmetic(std::string_view text, const Algebra& algebra) : rest_(text), algebra_(algebra) {}

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

    std::optional<value> sum(int depth) {
        auto x = product(depth);
        while (x) {
            const char sign = take("+-");
            if (sign == '\0') break;
            auto y = product(depth);
            if (!y) return std::nullopt;
            x = algebra_.binary(sign, *std::move(x), *std::move(y));
        }
        return x;
    }
    std::optional<value> product(int depth) {
        auto x = signed_one(depth);
        while (x) {
            const char sign = take("*/");
            if (sign == '\0') break;
            auto y = signed_one(depth);
            if (!y) return std::nullopt;
            x = algebra_.binary(sign, *std::move(x), *std::move(y));
        }
        return x;
    }
    std::optional<value> signed_one(int depth) {
        bool negative = false;
        while (const char sign = take("+-")) negative ^= sign == '-';
        auto x = take("(") != '\0' ? inner(depth + 1) : numeral();
        while (x && take("%") != '\0') x = algebra_.hundredth(*std::move(x));
        if (!x || !negative) return x;
        return algebra_.negative(*std::move(x));
    }
    std::optional<value> inner(int depth) {
        if (depth > deepest) return std::nullopt;
        auto x = sum(depth);
        return take(")") != '\0' ? std::move(x) : std::nullopt;
    }
    std::optional<value> numeral() {
        const auto x = number();
        if (!x) return std::nullopt;
        return algebra_.number(*x);
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
    Algebra algebra_;
};

}  // namespace support
