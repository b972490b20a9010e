// Problems that people wrote: the calculator annotations in GSM8K's worked solutions, <<48/2=24>>. Consecutive ones of
// a solution are combined: 48/2 and 48+24 make 48+48/2.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "../support/error.hpp"
#include "../support/json_lines.hpp"
#include "../support/random.hpp"
#include "task.hpp"

namespace calculator {

using support::choices;
using support::mixed;

struct gsm8k_limits {
    int operations = 3;
    std::int64_t prompt = 20;  // characters with the "="
};

// What became of the annotations of both files.
struct gsm8k_counts {
    std::int64_t solutions = 0;
    std::int64_t annotations = 0;
    std::int64_t usable = 0;      // annotations that make a problem, alone or combined
    std::int64_t unreadable = 0;  // no expression and result
    std::int64_t inexact = 0;     // the result is rounded or wrong
    std::array<std::int64_t, obstacle_count> refused{};
    std::int64_t long_ones = 0;   // more operations or characters than the limits
    std::int64_t combined = 0;    // problems that join several annotations
    std::int64_t duplicates = 0;  // problems that the same file had before
    std::int64_t overlap = 0;     // problems of the held-out file that the training file has too

    std::string text() const {
        std::string lines =
            fmt::format("{} annotations in {} solutions: {} usable, {} unreadable, {} inexact, {} too long",
                        annotations, solutions, usable, unreadable, inexact, long_ones);
        for (std::size_t i = 0; i < obstacle_count; ++i)
            if (refused[i] > 0) lines += fmt::format(", {} {}", refused[i], obstacle_names[i]);
        return lines +
               fmt::format("\n{} combined expressions; {} duplicates dropped, {} held-out ones that training has",
                           combined, duplicates, overlap);
    }
};

namespace detail {

class gsm8k_file {
public:
    gsm8k_file(const gsm8k_limits& limits, gsm8k_counts& counts) : limits_(limits), counts_(counts) {}

    // The file's different problems in their order.
    std::vector<problem> read(const std::string& path) {
        support::for_each_json_line(
            path,
            [this](const support::json& object, const support::line_of_file& where) {
                for (const char* key : {"question", "answer"}) {
                    const auto found = object.find(key);
                    if (found == object.end() || !found->is_string())
                        where.refuse("expected \"{}\", a string, as GSM8K's files have it", key);
                }
                solution(object.at("answer").get_ref<const std::string&>());
            },
            [](std::int64_t, std::int64_t) {});
        if (problems_.empty())
            throw support::bad_input(
                fmt::format("{}: no solution in it has an annotation <<...=...>> to work with", path));
        return std::move(problems_);
    }

private:
    void solution(std::string_view text) {
        ++counts_.solutions;
        std::vector<expression> before;
        for (auto open = text.find("<<"); open != std::string_view::npos; open = text.find("<<")) {
            text.remove_prefix(open + 2);
            const auto close = text.find(">>");
            ++counts_.annotations;
            const auto e = close == std::string_view::npos ? unreadable() : annotation(text.substr(0, close));
            before = e ? chains(*e, before) : std::vector<expression>{};
        }
    }

    std::optional<expression> unreadable() {
        ++counts_.unreadable;
        return std::nullopt;
    }

    // The expression of "a=b", or of "a=b=c", where its value is exactly what is claimed.
    std::optional<expression> annotation(std::string_view text) {
        const auto first = text.find('=');
        if (first == std::string_view::npos) return unreadable();
        auto e = parse(text.substr(0, first));
        const auto claim = parse(text.substr(text.rfind('=') + 1));
        if (!e || !claim) return unreadable();
        const auto x = value(*e);
        if (x && x != value(*claim)) {
            ++counts_.inexact;
            return std::nullopt;
        }
        obstacle why{};
        if (!pose(*e, &why)) {
            ++counts_.refused[static_cast<std::size_t>(why)];
            return std::nullopt;
        }
        ++counts_.usable;
        return e;
    }

    // The expression alone and with each chain before it in the place of its result. All of them are noted.
    std::vector<expression> chains(const expression& e, const std::vector<expression>& before) {
        std::vector<expression> made;
        if (note(e, false)) made.push_back(e);
        for (const expression& chain : before) {
            expression joined = e;
            if (replace(joined, *value(chain), chain) && note(joined, true)) made.push_back(std::move(joined));
        }
        return made;
    }

    // Puts the chain in the place of the first number that is its result.
    static bool replace(expression& e, const fraction& result, const expression& chain) {
        if (e.is_number()) {
            if (e.number != result) return false;
            e = expression(chain);
            return true;
        }
        return replace(e.operands[0], result, chain) || replace(e.operands[1], result, chain);
    }

    bool note(const expression& e, bool combined) {
        auto p = pose(e);
        if (!p) return false;
        if (p->operations > limits_.operations || static_cast<std::int64_t>(p->prompt.size()) > limits_.prompt) {
            counts_.long_ones += combined ? 0 : 1;
            return false;
        }
        const bool fresh = seen_.insert(p->prompt).second;
        counts_.duplicates += fresh ? 0 : 1;
        counts_.combined += fresh && combined ? 1 : 0;
        if (fresh) problems_.push_back(*std::move(p));
        return true;
    }

    gsm8k_limits limits_;
    gsm8k_counts& counts_;
    std::unordered_set<std::string> seen_;
    std::vector<problem> problems_;
};

}  // namespace detail

// The problems of a folder with GSM8K's train.jsonl and test.jsonl, or of such a file and its neighbour. Held out are
// the expressions of test.jsonl that train.jsonl does not have.
class gsm8k final : public source {
public:
    // bad_input naming file and line where one of them cannot be read.
    gsm8k(const std::string& train_path, const std::string& test_path, const gsm8k_limits& limits = {}) {
        train_ = detail::gsm8k_file(limits, counts_).read(train_path);
        held_out_ = detail::gsm8k_file(limits, counts_).read(test_path);
        std::unordered_set<std::string> trained;
        for (const problem& p : train_) trained.insert(p.prompt);
        const auto removed = std::erase_if(held_out_, [&](const problem& p) { return trained.contains(p.prompt); });
        counts_.overlap = static_cast<std::int64_t>(removed);
        if (held_out_.empty())
            throw support::bad_input(fmt::format("{}: every expression in it occurs in {} too", test_path, train_path));
        shuffle(held_out_);
        measure();
    }

    static std::pair<std::string, std::string> files(const std::string& path) {
        namespace fs = std::filesystem;
        std::error_code failed;
        const fs::path folder = fs::is_directory(path, failed) ? fs::path(path) : fs::path(path).parent_path();
        const fs::path train = fs::is_directory(path, failed) ? folder / "train.jsonl" : fs::path(path);
        return {train.string(), (folder / "test.jsonl").string()};
    }
    explicit gsm8k(const std::pair<std::string, std::string>& paths, const gsm8k_limits& limits = {})
        : gsm8k(paths.first, paths.second, limits) {}

    const gsm8k_counts& counts() const { return counts_; }
    std::int64_t train_count() const { return static_cast<std::int64_t>(train_.size()); }
    std::int64_t held_out_count() const override { return static_cast<std::int64_t>(held_out_.size()); }
    std::int64_t longest_prompt() const override { return longest_prompt_; }
    std::int64_t longest_response() const override { return longest_response_; }

    // Every problem once, in an order of the seed's, and then again in another.
    std::vector<problem> train(std::uint64_t seed, std::int64_t first, std::int64_t count) const override {
        std::vector<problem> problems;
        std::vector<std::int64_t> order;
        std::int64_t ordered = -1;
        for (std::int64_t k = first; k < first + count; ++k) {
            const std::int64_t pass = k / train_count();
            if (pass != ordered) order = choices(mixed({seed, static_cast<std::uint64_t>(pass)})).order(train_count());
            ordered = pass;
            problems.push_back(train_[static_cast<std::size_t>(order[static_cast<std::size_t>(k % train_count())])]);
        }
        return problems;
    }

    std::vector<problem> held_out(std::int64_t count) const override {
        if (count > held_out_count()) {
            throw support::bad_input(
                fmt::format("held-out problems: {} are asked for, the data has {}", count, held_out_count()));
        }
        return {held_out_.begin(), held_out_.begin() + count};
    }

private:
    // The first ones of the file are not its easiest, so that any number of them is a fair sample.
    static void shuffle(std::vector<problem>& problems) {
        std::vector<problem> mixed_up;
        for (const std::int64_t i : choices(0).order(static_cast<std::int64_t>(problems.size())))
            mixed_up.push_back(std::move(problems[static_cast<std::size_t>(i)]));
        problems = std::move(mixed_up);
    }
    void measure() {
        for (const std::vector<problem>* part : {&train_, &held_out_}) {
            for (const problem& p : *part) {
                longest_prompt_ = std::max(longest_prompt_, static_cast<std::int64_t>(p.prompt.size()));
                longest_response_ = std::max(longest_response_, static_cast<std::int64_t>(p.response.size()) + 1);
            }
        }
    }

    gsm8k_counts counts_;
    std::vector<problem> train_;
    std::vector<problem> held_out_;
    std::int64_t longest_prompt_ = 0;
    std::int64_t longest_response_ = 0;
};

}  // namespace calculator
