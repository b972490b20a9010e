"""Every requirement has a row in docs/requirements.md, and every test that the page names is there."""
import pathlib
import re
import sys

import common

COUNT = 46
CASE = re.compile(r"TEST_CASE(?:_TEMPLATE)?\(\s*\"((?:[^\"\\]|\\.)*)\"")


def main():
    root = pathlib.Path(sys.argv[1])
    rows = [line for line in (root / "docs/requirements.md").read_text().splitlines() if line.startswith("| R1.")]
    numbers = [line.split("|")[1].strip() for line in rows]
    problems = [f"{n} has no row" for n in (f"R1.{k}" for k in range(1, COUNT + 1)) if n not in numbers]
    named = 0
    for number, line in zip(numbers, rows):
        tests = re.split(r"(?<!\\)\|", line)[3]
        file = None
        for name, case in re.findall(r"`((?:cuda/)?test_\w+\.(?:cpp|cu))`|\"([^\"]+)\"", tests):
            if name:
                file = root / "tests" / name
                if not file.exists():
                    problems.append(f"{number}: there is no {name}")
            elif file is not None and file.exists():
                named += 1
                if not any(c.startswith(case) for c in CASE.findall(file.read_text())):
                    problems.append(f"{number}: {file.name} has no test that begins with: {case}")
        if file is None:
            problems.append(f"{number} names no test")
    common.finish(problems, f"{len(rows)} requirements, {named} tests")


main()
