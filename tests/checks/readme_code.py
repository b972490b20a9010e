"""The README's programs: every ```cpp block with a main is compiled and run, and prints the ```text block after it."""
import pathlib
import re
import sys
import tempfile

import common

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.M | re.S)


def programs(text):
    """(line, code, expected output or None) of every block that is a whole program."""
    blocks = [(text.count("\n", 0, m.start()) + 1, m.group(1), m.group(2)) for m in BLOCK.finditer(text)]
    for at, (line, language, code) in enumerate(blocks):
        if language == "cpp" and re.search(r"\bint main\s*\(", code):
            after = blocks[at + 1] if at + 1 < len(blocks) else (0, "", "")
            yield line, code, after[2] if after[1] == "text" else None


def trimmed(text):
    return [line.rstrip() for line in text.rstrip().splitlines()]


def problem_of(line, code, expected, compiler, include_dir, scratch):
    source = pathlib.Path(scratch) / f"readme_{line}.cpp"
    binary = source.with_suffix("")
    source.write_text(code)
    built = common.run([compiler, "-std=c++20", "-O1", *common.WARNINGS, "-I", include_dir, source, "-o", binary, "-pthread"])
    if built.returncode != 0:
        return f"README.md:{line}: the program does not compile\n{built.stderr}"
    ran = common.run([binary], timeout=60)
    if ran.returncode != 0:
        return f"README.md:{line}: the program ends with status {ran.returncode}\n{ran.stderr}"
    if expected is None:
        return f"README.md:{line}: the program has no ```text block with its output after it; it prints\n{ran.stdout}"
    if trimmed(ran.stdout) != trimmed(expected):
        return f"README.md:{line}: the program prints\n{ran.stdout}where the README says\n{expected}"
    return None


def main():
    readme, compiler, include_dir = sys.argv[1:4]
    if not pathlib.Path(readme).exists():
        common.finish(["there is no README.md"], "no program compiled")
    found = list(programs(pathlib.Path(readme).read_text()))
    if not found:
        common.finish(["README.md holds no complete program in a ```cpp block"], "no program compiled")
    with tempfile.TemporaryDirectory() as scratch:
        problems = [p for p in (problem_of(*f, compiler, include_dir, scratch) for f in found) if p]
    common.finish(problems, f"{len(found)} program(s) of the README")


main()
