// JSONL of rollouts into memory: grpo's own format, and worked solutions with calculator annotations (GSM8K's file of
// model solutions). docs/rollout-format.md describes both.
#pragma once

#include <cctype>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "../support/json_lines.hpp"
#include "../support/progress.hpp"
#include "arithmetic.hpp"
#include "rollouts.hpp"

namespace report {

using support::json;

// How many words a text has; the token count of a response that does not say its own.
inline std::int64_t words_of(std::string_view text) {
    std::int64_t words = 0;
    bool inside = false;
    for (const char c : text) {
        const bool blank = std::isspace(static_cast<unsigned char>(c)) != 0;
        words += !blank && !inside ? 1 : 0;
        inside = !blank;
    }
    return words;
}

class reader {
public:
    // The whole file, or bad_input naming file, line and what was expected.
    static rollouts read(const std::string& file) {
        reader r(file);
        std::error_code failed;
        const auto size = std::filesystem::file_size(file, failed);
        {
            support::progress_options shown;
            shown.seconds_between_lines = 0;
            shown.terminal = shown.terminal && !failed && size >= long_file;
            support::progress bar("reading", failed ? 1 : static_cast<std::int64_t>(size), 0, shown);
            support::for_each_json_line(
                file,
                [&](const json& object, const support::line_of_file& where) {
                    r.line_ = where.line;
                    r.line(object);
                },
                [&](std::int64_t bytes, std::int64_t line) { bar.at(bytes, fmt::format("line {}", line)); });
            bar.clear();
        }
        if (r.out_.prompt.empty())
            throw bad_input(fmt::format("{}: holds no rollouts, expected one JSON object per line", file));
        return r.out_;
    }

private:
    explicit reader(const std::string& file) : file_(file) {}

    template <class... Values>
    [[noreturn]] void refuse(fmt::format_string<Values...> sentence, Values&&... values) const {
        support::line_of_file{file_, line_}.refuse(sentence, std::forward<Values>(values)...);
    }

    void line(const json& object) {
        const bool worked = object.contains("question") && !object.contains("responses");
        if (out_.format.empty()) out_.format = worked ? worked_format : own_format;
        if (worked != (out_.format == worked_format))
            refuse("expected the format of the lines before it: {}", out_.format);
        worked ? worked_line(object) : own_line(object);
        out_.groups.push_back(out_.response_count());
    }

    // ---- {"prompt_id": ..., "responses": [...]}

    void own_line(const json& object) {
        const auto id = object.find("prompt_id");
        if (id == object.end() || !(id->is_string() || id->is_number_integer())) {
            refuse("expected \"prompt_id\", a string or an integer{}", got(object, "prompt_id"));
        }
        const auto responses = object.find("responses");
        if (responses == object.end() || !responses->is_array()) {
            refuse("expected \"responses\", a list{}", got(object, "responses"));
        }
        out_.prompt.push_back(id->is_string() ? id->get<std::string>() : id->dump());
        classes_.clear();
        for (std::size_t i = 0; i < responses->size(); ++i) response((*responses)[i], fmt::format("responses[{}]", i));
    }

    void response(const json& r, const std::string& where) {
        if (!r.is_object()) refuse("expected {} to be an object, got {}", where, r.type_name());
        const auto reward = r.find("reward");
        if (reward == r.end() || !(reward->is_number() || reward->is_null())) {
            refuse("expected {}.reward, a number, or null where it could not be scored{}", where, got(r, "reward"));
        }
        out_.valid.push_back(reward->is_null() ? 0 : 1);
        out_.reward.push_back(reward->is_null() ? 0.0 : reward->get<double>());
        const auto text = r.find("text");
        if (text != r.end() && !text->is_string())
            refuse("expected {}.text to be a string, got {}", where, text->type_name());
        name_answer(r, where);
        const std::int64_t tokens = token_count(r, where);
        out_.tokens.push_back(out_.tokens.back() + tokens);
        steps(r, tokens, where);
        out_.steps.push_back(static_cast<std::int64_t>(out_.step_end.size()));
    }

    void name_answer(const json& r, const std::string& where) {
        const auto answer = r.find("answer");
        if (answer == r.end() || answer->is_null()) return no_answer();
        if (!answer->is_string() && !answer->is_number()) {
            refuse("expected {}.answer to be a string or a number, got {}", where, answer->type_name());
        }
        add_answer(answer->is_string() ? answer->get<std::string>() : answer->dump());
    }

    std::int64_t token_count(const json& r, const std::string& where) const {
        const auto tokens = r.find("tokens");
        if (tokens != r.end()) {
            if (!tokens->is_number_integer() || tokens->get<std::int64_t>() < 0 ||
                tokens->get<std::int64_t>() > most_tokens) {
                refuse("expected {}.tokens, an integer from 0 to {}, got {}", where, most_tokens, tokens->dump());
            }
            return tokens->get<std::int64_t>();
        }
        if (const auto text = r.find("text"); text != r.end()) return words_of(text->get_ref<const std::string&>());
        const auto steps = r.find("steps");
        if (steps != r.end() && steps->is_array() && !steps->empty() && steps->back().is_object()) {
            const auto end = steps->back().find("end");
            if (end != steps->back().end() && end->is_number_integer() && end->get<std::int64_t>() < most_tokens) {
                return end->get<std::int64_t>() + 1;
            }
        }
        return 1;
    }

    void steps(const json& r, std::int64_t tokens, const std::string& where) {
        const auto list = r.find("steps");
        if (list == r.end()) return;
        if (!list->is_array()) refuse("expected {}.steps to be a list, got {}", where, list->type_name());
        std::int64_t least = 0;
        for (std::size_t j = 0; j < list->size(); ++j) {
            const json& step = (*list)[j];
            const std::string at = fmt::format("{}.steps[{}]", where, j);
            if (!step.is_object()) refuse("expected {} to be an object, got {}", at, step.type_name());
            const auto end = step.find("end");
            if (end == step.end() || !end->is_number_integer())
                refuse("expected {}.end, an integer{}", at, got(step, "end"));
            const auto last = end->get<std::int64_t>();
            if (last < least || last >= tokens) {
                refuse("expected {}.end from {} to {} (tokens: {}), got {}", at, least, tokens - 1, tokens, last);
            }
            const auto reward = step.find("reward");
            if (reward == step.end() || !reward->is_number())
                refuse("expected {}.reward, a number{}", at, got(step, "reward"));
            out_.step_end.push_back(last);
            out_.step_reward.push_back(reward->get<double>());
            least = last;
        }
    }

    // ---- {"question": ..., "<model>": {"solution": ..., "is_correct": ...}, ...}

    void worked_line(const json& object) {
        const json& question = object.at("question");
        if (!question.is_string()) refuse("expected \"question\" to be a string, got {}", question.type_name());
        out_.prompt.push_back(fmt::format("line {}", line_));
        classes_.clear();
        bool any = false;
        for (const auto& [model, solved] : object.items()) {
            if (!solved.is_object()) continue;
            const auto text = solved.find("solution");
            const auto label = solved.find("is_correct");
            if (text == solved.end() || !text->is_string())
                refuse("expected \"{}\".solution, a string{}", model, got(solved, "solution"));
            if (label == solved.end() || !label->is_boolean()) {
                refuse("expected \"{}\".is_correct, true or false{}", model, got(solved, "is_correct"));
            }
            solution(text->get_ref<const std::string&>(), label->get<bool>());
            any = true;
        }
        if (!any) refuse("expected at least one model with a \"solution\" and \"is_correct\"");
    }

    // Every line with words is a step. The line with the final answer is worth +1 or -1 by the label, the others +1 if
    // all their annotations are right, -1 if one is not, and 0 if there is nothing to check.
    void solution(std::string_view text, bool correct) {
        out_.valid.push_back(1);
        out_.reward.push_back(correct ? 1.0 : 0.0);
        std::int64_t words = 0;
        std::string answer;
        for (bool more = true; more;) {
            const auto newline = text.find('\n');
            const std::string_view part = text.substr(0, newline);
            more = newline != std::string_view::npos;
            if (more) text.remove_prefix(newline + 1);
            const std::int64_t here = words_of(part);
            if (here == 0) continue;
            words += here;
            const std::string_view final_answer = answer_in(part);
            const double checked = annotations(part);
            if (!final_answer.empty()) answer = final_answer;
            out_.step_end.push_back(words - 1);
            out_.step_reward.push_back(final_answer.empty() ? checked : correct ? 1.0 : -1.0);
        }
        answer.empty() ? no_answer() : add_answer(answer);
        out_.tokens.push_back(out_.tokens.back() + words);
        out_.steps.push_back(static_cast<std::int64_t>(out_.step_end.size()));
    }

    // What follows "A:" at the start of a line or "####" in it.
    static std::string_view answer_in(std::string_view part) {
        if (part.starts_with("A:")) return part.substr(2);
        const auto mark = part.find("####");
        return mark == std::string_view::npos ? std::string_view() : part.substr(mark + 4);
    }

    double annotations(std::string_view part) {
        bool right = false;
        bool wrong = false;
        for (auto open = part.find("<<"); open != std::string_view::npos; open = part.find("<<")) {
            part.remove_prefix(open + 2);
            const auto close = part.find(">>");
            const verdict v =
                close == std::string_view::npos ? verdict::unreadable : check_annotation(part.substr(0, close));
            out_.right += v == verdict::right ? 1 : 0;
            out_.wrong += v == verdict::wrong ? 1 : 0;
            out_.unreadable += v == verdict::unreadable ? 1 : 0;
            right = right || v == verdict::right;
            wrong = wrong || v == verdict::wrong;
        }
        return wrong ? -1.0 : right ? 1.0 : 0.0;
    }

    // ---- answers: equal ones get equal numbers within a group; a response without one agrees with no other

    void add_answer(const std::string& answer) {
        ++out_.answered;
        const auto next = static_cast<std::int64_t>(classes_.size());
        out_.answer.push_back(classes_.emplace("=" + canonical(answer), next).first->second);
    }
    void no_answer() {
        const auto next = static_cast<std::int64_t>(classes_.size());
        out_.answer.push_back(next);
        classes_.emplace(fmt::format("-{}", next), next);
    }

    static std::string got(const json& object, const char* key) {
        const auto found = object.find(key);
        if (found == object.end()) return ", but there is none";
        return fmt::format(", got {}", found->is_primitive()
                                           ? found->dump(-1, ' ', false, json::error_handler_t::replace)
                                           : std::string(found->type_name()));
    }

    static constexpr const char* own_format = "prompt_id and responses";
    static constexpr const char* worked_format = "question and one worked solution per model";
    static constexpr std::uintmax_t long_file = std::uintmax_t{1} << 20;  // bytes from which on a bar is shown
    static constexpr std::int64_t most_tokens = std::int64_t{1} << 30;

    const std::string& file_;
    rollouts out_;
    std::int64_t line_ = 0;
    std::map<std::string, std::int64_t> classes_;
};

}  // namespace report
