// Evaluations in a checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "evaluate.hpp"

namespace calculator {

inline nlohmann::ordered_json stored(const evaluation& e) {
    nlohmann::ordered_json j{{"greedy", e.greedy}, {"steps", e.steps}, {"lengths", e.lengths}, {"ended", e.ended}};
    for (const auto& [k, x] : e.pass) j["pass"][std::to_string(k)] = x;
    for (const auto& [k, x] : e.maj) j["maj"][std::to_string(k)] = x;
    return j;
}

inline evaluation evaluation_from(const nlohmann::ordered_json& j) {
    evaluation e;
    e.greedy = j.at("greedy").get<std::vector<double>>();
    e.steps = j.at("steps").get<std::vector<double>>();
    e.lengths = j.at("lengths").get<std::vector<double>>();
    e.ended = j.at("ended").get<std::vector<double>>();
    const auto read = [&](const char* name, std::map<std::int64_t, std::vector<double>>& to) {
        if (!j.contains(name)) return;
        for (const auto& [k, x] : j.at(name).items()) to[std::stoll(k)] = x.template get<std::vector<double>>();
    };
    read("pass", e.pass);
    read("maj", e.maj);
    return e;
}

}  // namespace calculator
