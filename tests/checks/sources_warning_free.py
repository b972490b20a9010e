"""The tests compile without warnings under one more compiler, so that every template is instantiated there too."""
import argparse
import pathlib

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compiler")
    parser.add_argument("include_dir")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--system", action="append", default=[])
    args = parser.parse_args()

    def problem_of(source):
        system = [word for directory in args.system for word in ("-isystem", directory)]
        result = common.run([args.compiler, "-std=c++20", "-fsyntax-only", *common.WARNINGS, "-I", args.include_dir,
                             "-I", pathlib.Path(source).parent, *system, '-DGRPO_VECTORS_DIR="."', source])
        return None if result.returncode == 0 else f"{source}:\n{result.stderr[:6000]}"

    problems = [p for p in common.side_by_side(problem_of, args.sources) if p]
    common.finish(problems, f"{len(args.sources)} files with {args.compiler}")


main()
