"""The budget of the door: grpo.hpp is at most 40,000 preprocessed lines, blank ones not counted."""
import pathlib
import sys

import common

LIMIT = 40_000


def main():
    compiler, include_dir = sys.argv[1:3]
    door = pathlib.Path(include_dir) / "grpo" / "grpo.hpp"
    result = common.run([compiler, "-std=c++20", "-E", "-P", "-x", "c++", "-I", include_dir, door])
    if result.returncode != 0:
        common.finish([result.stderr], "grpo.hpp could not be preprocessed")
    lines = sum(1 for line in result.stdout.splitlines() if line.strip())
    problems = [f"grpo.hpp is {lines} preprocessed lines, over {LIMIT}"] if lines > LIMIT else []
    common.finish(problems, f"grpo.hpp is {lines} preprocessed lines of at most {LIMIT}")


main()
