// Learning curves from tables of metrics, drawn by plot/curves.py with matplotlib.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace support {

// Where the build found plot/curves.py.
#ifdef GRPO_CURVES_SCRIPT
inline constexpr const char* curves_script = GRPO_CURVES_SCRIPT;
#else
inline constexpr const char* curves_script = "plot/curves.py";
#endif

struct curves {
    std::string out;  // the SVG
    std::string title;
    std::string x = "step";  // the column along the axis
    std::string x_label;
    std::vector<std::string> panels;                        // "column[,column...][%]=title", see curves.py --help
    std::vector<std::pair<std::string, std::string>> runs;  // label and table; runs of one label become a band
    std::vector<std::string> more;                          // other options of curves.py
};

namespace detail {

// Runs a program of the PATH without a shell. Its exit status, or nothing where it cannot be started.
inline std::optional<int> run_program(const std::vector<std::string>& words, bool quiet) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (quiet) {
        ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
        ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    pid_t child = 0;
    const int failed = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return std::nullopt;
    int status = 0;
    while (::waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return std::nullopt;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

inline std::string setting(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' ? value : otherwise;
}

}  // namespace detail

// The first Python that has matplotlib: GRPO_PLOT_PYTHON, python3 of the PATH, the system's. Empty where there is none.
inline std::string plotting_python() {
    std::vector<std::string> candidates{"python3", "/usr/bin/python3"};
    if (const std::string wanted = detail::setting("GRPO_PLOT_PYTHON", ""); !wanted.empty()) candidates = {wanted};
    for (const std::string& python : candidates)
        if (detail::run_program({python, "-c", "import matplotlib"}, true) == 0) return python;
    return {};
}

inline std::vector<std::string> arguments_of(const curves& c, const std::string& script) {
    std::vector<std::string> words{script, "--out", c.out, "--x", c.x};
    const auto add = [&](const char* option, const std::string& value) {
        words.push_back(fmt::format("--{}={}", option, value));
    };
    if (!c.title.empty()) add("title", c.title);
    if (!c.x_label.empty()) add("x-label", c.x_label);
    for (const std::string& panel : c.panels) add("panel", panel);
    for (const auto& [label, table] : c.runs) add("run", label + "=" + table);
    words.insert(words.end(), c.more.begin(), c.more.end());
    return words;
}

// Draws the curves. Empty on success; otherwise a sentence that says why there is no picture and how to draw it later,
// for a run does not fail because its picture does. GRPO_CURVES names another script than `script`.
inline std::string draw(const curves& c, const std::string& script = curves_script) {
    const std::string path = detail::setting("GRPO_CURVES", script.c_str());
    std::vector<std::string> words = arguments_of(c, path);
    std::string command;
    for (const std::string& word : words) command += fmt::format(" '{}'", word);
    std::error_code failed;
    if (!std::filesystem::exists(path, failed))
        return fmt::format("{}: not drawn, for there is no script {}", c.out, path);
    const std::string python = plotting_python();
    if (python.empty()) {
        return fmt::format("{}: not drawn, for no Python here has matplotlib; later, with one that has it: python3{}",
                           c.out, command);
    }
    words.insert(words.begin(), python);
    const auto status = detail::run_program(words, false);
    if (status == 0) return {};
    return fmt::format("{}: not drawn, the script ended with status {}: {}{}", c.out, status.value_or(-1), python,
                       command);
}

}  // namespace support
