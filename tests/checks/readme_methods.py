"""The README's table of methods: every loss with its average compiles, and every advantage is a name of the library."""
import pathlib
import re
import sys
import tempfile

import common

ROW = re.compile(r"^\|([^|]*)\| `([^|`]*)` \| `(\w+\(\d*\))` \| (?:`(\w+)`|any|none) \|(.*)\|$", re.M)
# Functions and terms in the last column: `select_groups`, `value_loss{}`.
NAME = re.compile(r"`(\w+)(?:\{\})?`")


def program(rows):
    lines = ["#include <grpo/grpo.hpp>", "using namespace grpo;", "void compile_methods() {"]
    for at, (method, loss, average, advantage, remark) in enumerate(rows):
        lines.append(f"    // {method.strip()}")
        lines.append(f"    [[maybe_unused]] const objective m{at}{{{loss}, aggregation::{average}}};")
        names = [advantage] * bool(advantage) + NAME.findall(remark)
        lines += [f"    using ::grpo::{name};" for name in dict.fromkeys(names)]
    return "\n".join([*lines, "}", ""])


def main():
    readme, compiler, include_dir = sys.argv[1:4]
    rows = ROW.findall(pathlib.Path(readme).read_text())
    if len(rows) < 20:
        common.finish([f"the README's table of methods has {len(rows)} rows that can be read"], "nothing compiled")
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "methods.cpp"
        source.write_text(program(rows))
        result = common.run([compiler, "-std=c++20", "-fsyntax-only", "-I", include_dir, source])
    problems = [line for line in result.stderr.splitlines() if "error" in line] if result.returncode != 0 else []
    common.finish(problems, f"{len(rows)} methods of the README")


main()
