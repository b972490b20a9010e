// The names of the standard library that the headers use, for run-time compilation: NVRTC brings none, and a program that
// compiles kernels where it runs can count on no headers there. What is of the host alone is declared, and never called.
#pragma once

#if defined(__CUDACC_RTC__)

namespace std {

using size_t = decltype(sizeof(0));
using uintptr_t = unsigned long;
using int32_t = int;
using int64_t = long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long;
enum class byte : unsigned char {};
static_assert(sizeof(int64_t) == 8 && sizeof(uintptr_t) == sizeof(void*));

template <class T, T Value>
struct integral_constant {
    static constexpr T value = Value;
};
template <bool Value>
using bool_constant = integral_constant<bool, Value>;
using true_type = bool_constant<true>;
using false_type = bool_constant<false>;

template <class T>
struct type_identity {
    using type = T;
};
template <class T>
using type_identity_t = typename type_identity<T>::type;

template <bool Condition, class T, class F>
struct conditional : type_identity<T> {};
template <class T, class F>
struct conditional<false, T, F> : type_identity<F> {};
template <bool Condition, class T, class F>
using conditional_t = typename conditional<Condition, T, F>::type;

template <class T>
struct remove_reference : type_identity<T> {};
template <class T>
struct remove_reference<T&> : type_identity<T> {};
template <class T>
struct remove_reference<T&&> : type_identity<T> {};
template <class T>
using remove_reference_t = typename remove_reference<T>::type;

template <class T>
struct remove_const : type_identity<T> {};
template <class T>
struct remove_const<const T> : type_identity<T> {};
template <class T>
using remove_const_t = typename remove_const<T>::type;

template <class T>
struct remove_cv : type_identity<T> {};
template <class T>
struct remove_cv<const T> : type_identity<T> {};
template <class T>
struct remove_cv<volatile T> : type_identity<T> {};
template <class T>
struct remove_cv<const volatile T> : type_identity<T> {};
template <class T>
using remove_cv_t = typename remove_cv<T>::type;
template <class T>
using remove_cvref_t = remove_cv_t<remove_reference_t<T>>;

template <class T, class U>
inline constexpr bool is_same_v = false;
template <class T>
inline constexpr bool is_same_v<T, T> = true;
template <class T, class... Others>
inline constexpr bool is_one_of_v = (is_same_v<T, Others> || ...);
template <class T>
inline constexpr bool is_const_v = false;
template <class T>
inline constexpr bool is_const_v<const T> = true;
template <class T>
inline constexpr bool is_integral_v =
    is_one_of_v<remove_cv_t<T>, bool, char, signed char, unsigned char, wchar_t, char8_t, char16_t, char32_t, short,
                unsigned short, int, unsigned, long, unsigned long, long long, unsigned long long>;
template <class T>
inline constexpr bool is_floating_point_v = is_one_of_v<remove_cv_t<T>, float, double>;
template <class T>
inline constexpr bool is_arithmetic_v = is_integral_v<T> || is_floating_point_v<T>;
template <class T>
inline constexpr bool is_trivially_copyable_v = __is_trivially_copyable(T);

template <class T>
T&& declval() noexcept;

template <class T, class U>
concept same_as = is_same_v<T, U> && is_same_v<U, T>;
template <class T>
concept floating_point = is_floating_point_v<T>;
template <class From, class To>
concept convertible_to = __is_convertible_to(From, To) && requires {
    static_cast<To>(declval<From>());
};

using ::abs;
using ::exp;
using ::expm1;
using ::log;
using ::log1p;
using ::sqrt;

class exception {
public:
    virtual ~exception() = default;
    virtual const char* what() const noexcept { return ""; }
};
struct FILE;
int fprintf(FILE*, const char*, ...);
int snprintf(char*, size_t, const char*, ...);
[[noreturn]] inline void abort() {
    __trap();
    __builtin_unreachable();
}

}  // namespace std

inline constexpr std::FILE* stderr = nullptr;
inline constexpr double HUGE_VAL = 1.0 / 0.0;  // as these compilers fold it

inline void* __builtin_memcpy(void* to, const void* from, std::size_t bytes) {
    return memcpy(to, from, bytes);
}

#endif
