"""The README's table of recipes: every line computes what the loss and the average beside it compute, and none is missing."""
import pathlib
import re
import sys
import tempfile

import common

ROW = re.compile(r"^\| `recipe::(\w+)\(\)` \|[^|]*\| `([^|`]*)` \| `(\w+\(\d*\))` \|(.*)\|$", re.M)
MENTIONED = re.compile(r"`recipe::(\w+)\(\)`")
# Functions and terms in the last column: `select_groups`, `value_loss{}`.
NAME = re.compile(r"`(\w+)(?:\{\})?`")
PROGRAM = """
#include <cstdio>
#include <vector>
#include <grpo/grpo.hpp>
#include <grpo/recipe.hpp>
using namespace grpo;

template <class A, class B>
void compare(const char* name, const A& recipe, const B& written) {
    const std::vector<int> cu{0, 3, 5, 5, 9, 10};
    const std::vector<double> x{-0.9, -1.2, -0.4, -2.0, -0.7, -1.1, -0.3, -0.8, -1.6, -0.5};
    const std::vector<double> y{-1.0, -1.9, -0.9, -2.1, -0.1, -1.5, -0.3, -0.7, -1.1, -0.6};
    const std::vector<double> z{-1.1, -1.0, -0.8, -2.0, -0.8, -1.4, -0.4, -0.7, -1.5, -0.6};
    const std::vector<double> flags{1, 0, 1, 1, 1, 0, 1, 1, 1, 1}, correct{1, 0, 1, 1, 0};
    const std::vector<double> a{0.5, -0.75, 0.1, 1.25, -1.5};
    std::vector<double> g(10), h(10);
    const auto tokens = ragged(cu);
    const batch b(tokens, logp(x), logp_old(y), logp_ref(z), logp_rollout(z), weight(y), keep(flags),
                  label(by_sequence(correct)), advantage(by_sequence(a)));
    const double n = recipe.over.denominator(count(tokens));
    const double m = written.over.denominator(count(tokens));
    const double loss = evaluate(serial{}, recipe, b, n, d_logp(g)).loss(n);
    if (n != m || loss != evaluate(serial{}, written, b, m, d_logp(h)).loss(m) || g != h) std::printf("differs %s\\n", name);
}
"""


def program(rows):
    lines = [PROGRAM, "int main() {", '    for (const char* name : recipe::names()) std::printf("name %s\\n", name);']
    for name, loss, average, remark in rows:
        lines.append(f'    compare("{name}", recipe::{name}().objective, objective{{{loss}, aggregation::{average}}});')
        lines += [f"    {{ using ::grpo::{used}; }}" for used in NAME.findall(remark)]
    return "\n".join([*lines, "}", ""])


def main():
    readme, compiler, include_dir = sys.argv[1:4]
    text = pathlib.Path(readme).read_text()
    rows = ROW.findall(text)
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "methods.cpp"
        binary = source.with_suffix("")
        source.write_text(program(rows))
        built = common.run([compiler, "-std=c++20", "-O0", "-w", "-I", include_dir, source, "-o", binary])
        if built.returncode != 0:
            common.finish([line for line in built.stderr.splitlines() if "error" in line], "the README's table does not compile")
        said = common.run([binary]).stdout.split("\n")
    names = {line.split()[1] for line in said if line.startswith("name ")}
    problems = [f"README.md: recipe::{line.split()[1]}() is not the loss and average of its row"
                for line in said if line.startswith("differs ")]
    problems += [f"README.md: no line for recipe::{name}()" for name in sorted(names - set(MENTIONED.findall(text)))]
    common.finish(problems, f"{len(rows)} of {len(names)} recipes compared, all of them named")


main()
