"""The rules that every public header keeps: length, includes, direction of imports, macros."""
import pathlib
import re
import sys

import common

MAX_HEADER_LINES = 400
MAX_FUNCTION_LINES = 40
MACROS = {"GRPO_HD", "GRPO_HD_WHOLE", "GRPO_ROLLED", "GRPO_VERSION_MAJOR", "GRPO_VERSION_MINOR", "GRPO_VERSION_PATCH", "GRPO_TORCH_REGISTER"}
# Leaving a program without exceptions needs std::abort, and only this header does it.
EXTRA_STANDARD = {"detail/check.hpp": {"cstdlib"}}
# The one executor that the core may name: a team of one lane.
CORE_EXECUTOR = "grpo/exec/serial.hpp"

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
DEFINE = re.compile(r"^\s*#\s*define\s+(\w+)", re.M)
UNDEF = re.compile(r"^\s*#\s*undef\s+(\w+)", re.M)
NOT_A_FUNCTION = re.compile(r"\b(namespace|struct|class|enum|union|concept|extern)\b")


def without_comments_and_strings(text):
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\''
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def long_functions(code):
    """Outermost braces that follow a parameter list: (first line, number of lines) of those that are too long."""
    found, stack, begin = [], [], 0
    for at, c in enumerate(code):
        if c in ";}" and not (c == "}" and stack):
            begin = at + 1
        elif c == "{":
            head = re.sub(r"template\s*<[^{;]*?>\s*(?=\w)", "", code[begin:at])
            inside = any(kind == "function" for kind, _ in stack)
            is_function = ")" in head and not NOT_A_FUNCTION.search(head)
            stack.append(("function" if is_function and not inside else "other", at))
            begin = at + 1
        elif c == "}":
            kind, opened = stack.pop()
            begin = at + 1
            lines = code.count("\n", opened, at) + 1
            if kind == "function" and lines > MAX_FUNCTION_LINES:
                found.append((code.count("\n", 0, opened) + 1, lines))
    return found


def include_problems(name, text, edge):
    problems = []
    for quote, target in INCLUDE.findall(text):
        if quote == '"':
            problems.append(f'{name} includes "{target}"; public headers are included as <grpo/...>')
        elif target.startswith("grpo/"):
            outward = target.startswith(("grpo/exec/", "grpo/adapt/")) and target != CORE_EXECUTOR
            if outward and not edge:
                problems.append(f"{name} includes <{target}>: nothing in the core imports exec/ or adapt/")
        elif "/" in target or "." in target:
            if not edge:
                problems.append(f"{name} includes the third party <{target}> outside adapt/ and exec/")
        elif not edge and target not in common.CORE_STANDARD_HEADERS | EXTRA_STANDARD.get(name, set()):
            problems.append(f"{name} includes <{target}>, which is not among the core's light standard headers")
    return problems


def problems_of(header, include_dir):
    name = header.relative_to(pathlib.Path(include_dir) / "grpo").as_posix()
    text = header.read_text()
    problems = include_problems(name, text, common.is_edge(header, include_dir))
    lines = text.count("\n")
    if lines > MAX_HEADER_LINES:
        problems.append(f"{name} has {lines} lines, over {MAX_HEADER_LINES}")
    if "#pragma once" not in text:
        problems.append(f"{name} has no #pragma once")
    for macro in sorted(set(DEFINE.findall(text)) - set(UNDEF.findall(text)) - MACROS):
        problems.append(f"{name} defines the macro {macro}")
    for line, length in long_functions(without_comments_and_strings(text)):
        problems.append(f"{name}:{line} is a function of {length} lines, over {MAX_FUNCTION_LINES}")
    return problems


def main():
    include_dir = sys.argv[1]
    found = common.headers(include_dir)
    problems = [p for header in found for p in problems_of(header, include_dir)]
    common.finish(problems, f"{len(found)} headers")


main()
