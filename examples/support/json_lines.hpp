// Files with one JSON object per line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "error.hpp"

namespace support {

using json = nlohmann::ordered_json;

// Where a line stands, for sentences about it.
struct line_of_file {
    const std::string& file;
    std::int64_t line = 0;

    // bad_input: "FILE:LINE: " and the sentence.
    template <class... Values>
    [[noreturn]] void refuse(fmt::format_string<Values...> sentence, Values&&... values) const {
        throw bad_input(fmt::format("{}:{}: {}", file, line, fmt::format(sentence, std::forward<Values>(values)...)));
    }
};

inline json json_object(const std::string& text, const line_of_file& where) {
    json object;
    try {
        object = json::parse(text);
    } catch (const json::parse_error& e) {
        const bool nan = text.find("NaN") != std::string::npos || text.find("Infinity") != std::string::npos;
        where.refuse("expected one JSON object, but the text is not JSON at column {}{}", e.byte,
                     nan ? " (JSON has no NaN or Infinity: a reward that could not be scored is null)" : "");
    } catch (const json::exception&) {
        where.refuse("expected one JSON object, but a number in it is too large");
    }
    if (!object.is_object()) where.refuse("expected one JSON object, got {}", object.type_name());
    return object;
}

// Calls each(object, where) for every line that is not blank, and seen(bytes, line) after every line. Gives the number
// of objects. bad_input where the file cannot be read to its end, or a line is no JSON object.
template <class Each, class Seen>
std::int64_t for_each_json_line(const std::string& file, Each&& each, Seen&& seen) {
    std::error_code failed;
    if (std::filesystem::is_directory(file, failed))
        throw bad_input(fmt::format("{}: is a directory, expected a file", file));
    std::ifstream in(file, std::ios::binary);
    if (!in) throw bad_input(fmt::format("{}: cannot be opened for reading", file));
    line_of_file where{file};
    std::int64_t bytes = 0;
    std::int64_t objects = 0;
    for (std::string text; std::getline(in, text);) {
        ++where.line;
        bytes += static_cast<std::int64_t>(text.size()) + 1;
        if (text.find_first_not_of(" \t\r") != std::string::npos) {
            each(json_object(text, where), where);
            ++objects;
        }
        seen(bytes, where.line);
    }
    if (in.bad()) throw bad_input(fmt::format("{}: reading stopped after line {}", file, where.line));
    return objects;
}

}  // namespace support
