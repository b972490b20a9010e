"""A file that must not compile is refused, and the compiler's words hold the sentence of its first line.

The first line of the file is `// expect: <sentence>`.
"""
import argparse
import pathlib

import common

MARK = "// expect: "


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compiler")
    parser.add_argument("include_dir")
    parser.add_argument("source")
    parser.add_argument("--system", action="append", default=[])
    args = parser.parse_args()

    first = pathlib.Path(args.source).read_text().split("\n", 1)[0]
    sentence = first.removeprefix(MARK).strip()
    if not first.startswith(MARK) or not sentence:
        common.finish([f"{args.source} does not begin with '{MARK}<sentence>'"], "nothing was compiled")
    system = [word for directory in args.system for word in ("-isystem", directory)]
    result = common.run([args.compiler, "-std=c++20", "-fsyntax-only", "-I", args.include_dir, *system, args.source])
    problems = []
    if result.returncode == 0:
        problems.append(f"it compiles, but should be refused with: {sentence}")
    elif sentence not in result.stderr:
        problems.append(f"it is refused without the sentence: {sentence}\nthe compiler says:\n{result.stderr[:8000]}")
    common.finish(problems, f"{args.source} with {args.compiler}")


main()
