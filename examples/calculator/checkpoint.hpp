// Checkpoints: everything that a run continues from, in one file that is whole or not there.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "../support/error.hpp"
#include "../support/files.hpp"
#include "learner.hpp"

#include <torch/serialize.h>

namespace calculator {

// Archives by name, and one JSON value that says what they are.
class checkpoint_writer {
public:
    void weights(const std::string& name, const transformer& model) {
        torch::serialize::OutputArchive part;
        model.save(part);
        all_.write(name, part);
    }
    void optimizer(const torch::optim::Optimizer& o) {
        torch::serialize::OutputArchive part;
        o.save(part);
        all_.write("optimizer", part);
    }
    void save(const std::string& path, const nlohmann::ordered_json& about) {
        all_.write("about", c10::IValue(about.dump()));
        std::ostringstream bytes;
        all_.save_to(bytes);
        support::write_file(path, bytes.str());
    }

private:
    torch::serialize::OutputArchive all_;
};

class checkpoint_reader {
public:
    // file_error or bad_input where the file cannot be read or is none of this program's.
    explicit checkpoint_reader(const std::string& path) : path_(path) {
        std::istringstream bytes(support::read_file(path));
        try {
            c10::IValue about;
            all_.load_from(bytes);
            all_.read("about", about);
            about_ = nlohmann::ordered_json::parse(about.toStringRef());
        } catch (const std::exception&) {
            throw support::bad_input(fmt::format("{}: is no checkpoint of this program, or a damaged one", path));
        }
    }

    const nlohmann::ordered_json& about() const { return about_; }

    void weights(const std::string& name, transformer& model) {
        torch::serialize::InputArchive part;
        read(name, part);
        model.load(part);
    }
    void optimizer(torch::optim::Optimizer& o) {
        torch::serialize::InputArchive part;
        read("optimizer", part);
        o.load(part);
    }

    // bad_input for a value that differs, named by its path in the configuration.
    void require_same(const nlohmann::ordered_json& wanted, const std::string& part, const std::string& what) const {
        const auto& config = about_.at("config");
        const auto mine = part.empty() ? wanted : wanted.at(part);
        const auto theirs = part.empty() ? config : config.at(part);
        const auto a = theirs.flatten();
        const auto b = mine.flatten();
        for (const auto& [name, value] : b.items()) {
            const std::string there = a.contains(name) ? a.at(name).dump() : "not set";
            if (there == value.dump()) continue;
            std::string shown = (part.empty() ? "" : part + ".") + name.substr(1);
            for (char& c : shown) c = c == '/' ? '.' : c;
            throw support::bad_input(fmt::format("{}: is of another {}: {} is {} there and {} here", path_, what, shown,
                                                 there, value.dump()));
        }
    }

private:
    void read(const std::string& name, torch::serialize::InputArchive& part) {
        if (!all_.try_read(name, part))
            throw support::bad_input(fmt::format("{}: has no {}: it is not a checkpoint to go on from", path_, name));
    }

    std::string path_;
    torch::serialize::InputArchive all_;
    nlohmann::ordered_json about_;
};

}  // namespace calculator
