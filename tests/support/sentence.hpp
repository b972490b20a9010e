// What a call that is refused says.
#pragma once

#include <string>

#include <grpo/detail/check.hpp>

namespace errors {

// The sentence of the error that f throws; if it throws none, `otherwise`.
template <class F>
std::string sentence(F&& f, const char* otherwise = "") {
    try {
        (void)f();
    } catch (const grpo::error& e) {
        return e.what();
    }
    return otherwise;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace errors
