"""A page's programs: every ```cpp block with a main is compiled and run, and prints the ```text block after it."""
import argparse
import pathlib
import re
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


def problem_of(line, code, expected, page, args, scratch):
    source = pathlib.Path(scratch) / f"readme_{line}.cpp"
    binary = source.with_suffix("")
    source.write_text(code)
    system = [word for directory in args.system for word in ("-isystem", directory)]
    built = common.run([args.compiler, "-std=c++20", "-O1", *common.WARNINGS, "-I", args.include_dir, *system, source,
                        "-o", binary, "-pthread", *args.link])
    if built.returncode != 0:
        return f"{page}:{line}: the program does not compile\n{built.stderr}"
    ran = common.run([binary], timeout=60)
    if ran.returncode != 0:
        return f"{page}:{line}: the program ends with status {ran.returncode}\n{ran.stderr}"
    if expected is None:
        return f"{page}:{line}: the program has no ```text block with its output after it; it prints\n{ran.stdout}"
    if trimmed(ran.stdout) != trimmed(expected):
        return f"{page}:{line}: the program prints\n{ran.stdout}where the page says\n{expected}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("compiler")
    parser.add_argument("include_dir")
    parser.add_argument("--system", action="append", default=[])
    parser.add_argument("--link", action="append", default=[])
    args = parser.parse_args()
    page = args.page.name
    if not args.page.exists():
        common.finish([f"there is no {page}"], "no program compiled")
    found = list(programs(args.page.read_text()))
    if not found:
        common.finish([f"{page} holds no complete program in a ```cpp block"], "no program compiled")
    with tempfile.TemporaryDirectory() as scratch:
        problems = [p for p in (problem_of(*f, page, args, scratch) for f in found) if p]
    common.finish(problems, f"{len(found)} program(s) of {page}")


main()
