"""The tests compile without warnings under one more compiler, so that every template is instantiated there too.

What many of them include is read once, as a precompiled header of clang's.
"""
import argparse
import collections
import pathlib
import re
import tempfile

import common


def often_included(sources):
    """Headers that every fourth file includes, but for frameworks that the others need not read."""
    lines = collections.Counter()
    for source in sources:
        lines.update(set(re.findall(r"^#include (<.*>)", pathlib.Path(source).read_text(), re.M)))
    return sorted(line for line, count in lines.items() if 4 * count >= len(sources))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compiler")
    parser.add_argument("include_dir")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--system", action="append", default=[])
    args = parser.parse_args()

    system = [word for directory in args.system for word in ("-isystem", directory)]
    with tempfile.TemporaryDirectory() as scratch:
        often = pathlib.Path(scratch) / "often.hpp"
        often.write_text("".join(f"#include {header}\n" for header in often_included(args.sources)))
        command = [args.compiler, "-std=c++20", *common.WARNINGS, "-I", args.include_dir, "-I", pathlib.Path(args.sources[0]).parent,
                   *system, '-DGRPO_VECTORS_DIR="."']
        precompiled = often.with_suffix(".pch")
        common.run([*command, "-x", "c++-header", often, "-o", precompiled])
        if precompiled.exists():  # else each file says what is wrong
            command += ["-include-pch", precompiled]

        def problem_of(source):
            result = common.run([*command, "-fsyntax-only", source])
            return None if result.returncode == 0 else f"{source}:\n{result.stderr[:6000]}"

        problems = [p for p in common.side_by_side(problem_of, args.sources) if p]
    common.finish(problems, f"{len(args.sources)} files with {args.compiler}")


main()
