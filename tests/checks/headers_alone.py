"""Every public header compiles as the only include of a file, without warnings, with a given compiler.

With --together all are included by one file: what one compiler finds missing in a header, another need not look for again.
"""
import argparse
import pathlib
import tempfile

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compiler")
    parser.add_argument("include_dir")
    parser.add_argument("--cuda", action="store_true", help="the compiler is nvcc; only the core headers are tried")
    parser.add_argument("--together", action="store_true", help="all of them in one file")
    parser.add_argument("--without", action="append", default=[], help="a header whose third party is not installed")
    parser.add_argument("--system", action="append", default=[], help="an include directory of a third party")
    args = parser.parse_args()

    left_out = {pathlib.Path(h) for h in args.without}
    wanted = [h for h in common.headers(args.include_dir) if h not in left_out]
    wanted = [h for h in wanted if h.suffix == ".hpp" or args.cuda]
    if args.cuda:
        wanted = [h for h in wanted if not common.is_edge(h, args.include_dir) or h.suffix == ".cuh"]

    with tempfile.TemporaryDirectory() as scratch:

        def problem_of(included):
            name = ", ".join(h.relative_to(args.include_dir).as_posix() for h in included)[:200]
            unit = pathlib.Path(scratch) / (included[0].name.replace(".", "_") + f"_{id(included)}" + (".cu" if args.cuda else ".cpp"))
            # Twice, so that a missing include guard shows too.
            lines = "".join(f"#include <{h.relative_to(args.include_dir).as_posix()}>\n" for h in included)
            unit.write_text(lines + lines)
            if args.cuda:
                command = [args.compiler, "--std=c++20", "-x", "cu", "-c", "-o", unit.with_suffix(".o"),
                           "--Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra", "-I", args.include_dir, unit]
            else:
                command = [args.compiler, "-std=c++20", "-fsyntax-only", *common.WARNINGS, "-I", args.include_dir, unit]
                for directory in args.system:
                    command += ["-isystem", directory]
            result = common.run(command)
            return None if result.returncode == 0 else f"{name} does not compile alone:\n{result.stderr}{result.stdout}"

        # The parts of one adapter share a unit where each would read a whole framework.
        parts = [h for h in wanted if h.parent.name == "torch"]
        units = [wanted] if args.together else [[h] for h in wanted if h not in parts] + ([parts] if parts else [])
        problems = [p for p in common.side_by_side(problem_of, units) if p]
    names = ", ".join(h.name for h in left_out) or "none"
    common.finish(problems, f"{len(wanted)} headers with {args.compiler}; left out: {names}")


main()
