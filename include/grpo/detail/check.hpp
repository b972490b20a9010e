// Errors: a sentence with the function, the argument and both numbers, before anything is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>

#include <grpo/detail/config.hpp>

#if !defined(__cpp_exceptions) || defined(__CUDACC_RTC__)
#include <cstdlib>
// Without exceptions a user may define this function; it receives the sentence. If it returns, the program aborts.
extern "C" __attribute__((weak)) void grpo_error_handler(const char* sentence);
#endif

namespace grpo::inline v0 {

// What was wrong with a call, or nothing. `validate(...)` functions return it; nothing is thrown, nothing allocated.
struct problem {
    char text[320];

    problem() { text[0] = '\0'; }  // not all of it: the common case is that nothing is wrong
    problem(const problem& other) { *this = other; }
    problem& operator=(const problem& other) {
        std::size_t i = 0;
        for (; other.text[i] != '\0'; ++i) text[i] = other.text[i];
        text[i] = '\0';
        return *this;
    }

    explicit operator bool() const { return text[0] != '\0'; }
};

// Thrown by every entry point for a caller's mistake. Holds its text in place, so throwing needs no further memory.
class error : public std::exception {
public:
    explicit error(const problem& p) noexcept : what_(p) {}
    const char* what() const noexcept override { return what_.text; }

private:
    problem what_;
};

namespace detail {

[[noreturn]] inline void raise(const problem& p) {
#if defined(__cpp_exceptions) && !defined(__CUDACC_RTC__)
    throw error(p);
#else
    if (grpo_error_handler != nullptr) grpo_error_handler(p.text);
    std::fprintf(stderr, "%s\n", p.text);
    std::abort();
#endif
}

inline void require(const problem& p) {
    if (p) raise(p);
}

// "grpo::FUNCTION: ARGUMENT SENTENCE", the sentence a printf format. Terms: long long for counts, double for values.
template <class... Numbers>
problem complain(const char* function, const char* argument, const char* sentence, Numbers... numbers) {
    problem p;
    const int used = std::snprintf(p.text, sizeof p.text, "grpo::%s: %s ", function, argument);
    if (used > 0 && used < static_cast<int>(sizeof p.text)) {
        std::snprintf(p.text + used, sizeof p.text - static_cast<std::size_t>(used), sentence, numbers...);
    }
    return p;
}

inline problem wrong_size(const char* function, const char* argument, std::int64_t got, std::int64_t wanted,
                          const char* of_what) {
    if (got == wanted) return {};
    return complain(function, argument, "has %lld entries, but the batch has %lld %s", static_cast<long long>(got),
                    static_cast<long long>(wanted), of_what);
}

inline problem null_pointer(const char* function, const char* argument, const void* p, std::int64_t size) {
    if (p != nullptr || size == 0) return {};
    return complain(function, argument, "is a null pointer, but %lld entries are needed", static_cast<long long>(size));
}

inline problem below(const char* function, const char* argument, double got, double least) {
    if (got >= least) return {};
    return complain(function, argument, "is %g, but must be at least %g", got, least);
}

inline problem not_above(const char* function, const char* argument, double got, double least) {
    if (got > least) return {};
    return complain(function, argument, "is %g, but must be above %g", got, least);
}

// The first problem of several, in the order given.
inline problem first_of(const problem& p) { return p; }

template <class... More>
problem first_of(const problem& p, const More&... more) {
    return p ? p : first_of(more...);
}

}  // namespace detail
}  // namespace grpo::inline v0
