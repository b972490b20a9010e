// The calculator annotations of worked solutions: <<48/2=24>>.
#pragma once

#include <cctype>
#include <optional>
#include <string>
#include <string_view>

#include "../support/arithmetic.hpp"

namespace report {

using support::fraction;

// The value of the whole text, or nothing where it is not an expression.
inline std::optional<fraction> value_of(std::string_view text) {
    return support::arithmetic<support::values>::parse(text);
}

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
        const auto x = value_of(part);
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
    const auto x = value_of(answer);
    if (!x || answer.find_first_of("+*/(") != std::string_view::npos) return plain;
    return x->den == 1 ? support::digits_of(x->num) : support::digits_of(x->num) + "/" + support::digits_of(x->den);
}

}  // namespace report
