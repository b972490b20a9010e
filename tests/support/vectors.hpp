// Reads the language-neutral test vectors (docs/test-vectors.md): tests/vectors/<family>.json.
//
//   for (const vectors::test_case& c : vectors::load("policy")) {
//       INFO(c.id());
//       const std::vector<float> logp = c.input<float>("logp");
//       CHECK(vectors::close(got, c.value(), c.tolerance<float>()));
//       CHECK(vectors::difference(gradient, c.expected<double>("gradient/logp"), c.tolerance<float>()) == "");
//   }
//
// The folder is $GRPO_VECTORS_DIR, or what the build defined GRPO_VECTORS_DIR as. A name that is absent ends the program
// with a sentence: a misspelt input must not read as an empty one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#ifndef GRPO_VECTORS_DIR
#define GRPO_VECTORS_DIR "tests/vectors"
#endif

namespace vectors {

using json = nlohmann::json;

[[noreturn]] inline void stop(const std::string& sentence) {
    std::fprintf(stderr, "test vectors: %s\n", sentence.c_str());
    std::exit(2);
}

// A number, or one of the strings "nan", "inf", "-inf".
inline double to_number(const json& x, const std::string& where) {
    if (x.is_number()) return x.get<double>();
    if (x.is_boolean()) return x.get<bool>() ? 1.0 : 0.0;
    if (x.is_string()) {
        const std::string text = x.get<std::string>();
        if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
        if (text == "inf") return std::numeric_limits<double>::infinity();
        if (text == "-inf") return -std::numeric_limits<double>::infinity();
    }
    stop(where + " is not a number: " + x.dump());
}

template <class T>
std::vector<T> to_array(const json& x, const std::string& where) {
    std::vector<T> out;
    if (!x.is_array()) stop(where + " is not an array");
    out.reserve(x.size());
    for (const json& e : x) out.push_back(static_cast<T>(to_number(e, where)));
    return out;
}

class test_case {
public:
    explicit test_case(json data) : data_(std::move(data)) {}

    std::string id() const { return data_.at("id").get<std::string>(); }
    std::string method() const { return data_.at("method").get<std::string>(); }
    const json& data() const { return data_; }

    bool has_parameter(const std::string& name) const { return data_.at("parameters").contains(name); }
    const json& parameter(const std::string& name) const { return at("parameters", name); }
    double number(const std::string& name) const { return to_number(parameter(name), where(name)); }
    double number(const std::string& name, double otherwise) const {
        return has_parameter(name) ? number(name) : otherwise;
    }
    int integer(const std::string& name) const { return static_cast<int>(number(name)); }
    bool flag(const std::string& name) const { return number(name) != 0.0; }
    std::string text(const std::string& name) const {
        const json& x = parameter(name);
        return x.is_string() ? x.get<std::string>() : x.dump();
    }

    bool has(const std::string& input) const { return data_.at("inputs").contains(input); }
    template <class T>
    std::vector<T> input(const std::string& name) const {
        return to_array<T>(at("inputs", name), where(name));
    }
    // An input that is a single number.
    double scalar_input(const std::string& name) const { return to_number(at("inputs", name), where(name)); }

    // A '/' descends: "gradient/logp".
    bool expects(const std::string& name) const { return data_.at("expected").contains(json::json_pointer("/" + name)); }
    bool expects_error() const { return expects("error"); }
    template <class T>
    std::vector<T> expected(const std::string& name) const {
        return to_array<T>(at("expected", name), where(name));
    }
    double expected_number(const std::string& name) const { return to_number(at("expected", name), where(name)); }
    double value() const { return expected_number("value"); }

    // For results computed in T.
    template <class T>
    double tolerance() const {
        const char* const name = std::is_same_v<T, float> ? "float32" : "float64";
        return to_number(data_.at("tolerance").at(name), where("tolerance"));
    }

private:
    std::string where(const std::string& name) const { return id() + ": " + name; }
    const json& at(const char* part, const std::string& name) const {
        const json& x = data_.at(part);
        const json::json_pointer place("/" + name);
        if (!x.contains(place)) stop(where(name) + " is absent from its " + part);
        return x.at(place);
    }

    json data_;
};

// All cases of a family, in the order of the file.
inline std::vector<test_case> load(const std::string& family) {
    const char* folder = std::getenv("GRPO_VECTORS_DIR");
    const std::string path = std::string(folder != nullptr ? folder : GRPO_VECTORS_DIR) + "/" + family + ".json";
    std::ifstream file(path);
    if (!file) stop("cannot read " + path);
    const json all = json::parse(file);
    if (all.at("schema") != 1 || all.at("family") != family) stop(path + " is not schema 1 of family " + family);
    std::vector<test_case> out;
    for (const json& c : all.at("cases")) out.emplace_back(c);
    if (out.empty()) stop(path + " has no cases");
    return out;
}

// Equal within tolerance · max(1, |expected|); a NaN equals a NaN, an infinity only itself.
inline bool close(double got, double expected, double tolerance) {
    if (std::isnan(expected)) return std::isnan(got);
    if (std::isinf(expected)) return got == expected;
    return std::abs(got - expected) <= tolerance * std::max(1.0, std::abs(expected));
}

// "" if all are close, else a sentence about the first that is not.
template <class Got, class Expected>
std::string difference(const Got& got, const Expected& expected, double tolerance) {
    if (got.size() != expected.size()) {
        return "has " + std::to_string(got.size()) + " entries, expected " + std::to_string(expected.size());
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
        const double g = static_cast<double>(got[i]);
        const double e = static_cast<double>(expected[i]);
        if (close(g, e, tolerance)) continue;
        char text[120];
        std::snprintf(text, sizeof text, "[%zu] is %.17g, expected %.17g", i, g, e);
        return text;
    }
    return "";
}

}  // namespace vectors
