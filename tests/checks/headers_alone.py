"""Every public header compiles as the only include of a file, without warnings, with a given compiler."""
import argparse
import pathlib
import tempfile

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("compiler")
    parser.add_argument("include_dir")
    parser.add_argument("--cuda", action="store_true", help="the compiler is nvcc; only the core headers are tried")
    parser.add_argument("--without", action="append", default=[], help="a header whose third party is not installed")
    parser.add_argument("--system", action="append", default=[], help="an include directory of a third party")
    args = parser.parse_args()

    left_out = {pathlib.Path(h) for h in args.without}
    wanted = [h for h in common.headers(args.include_dir) if h not in left_out]
    wanted = [h for h in wanted if h.suffix == ".hpp" or args.cuda]
    if args.cuda:
        wanted = [h for h in wanted if not common.is_edge(h, args.include_dir) or h.suffix == ".cuh"]

    with tempfile.TemporaryDirectory() as scratch:

        def problem_of(header):
            name = header.relative_to(args.include_dir).as_posix()
            unit = pathlib.Path(scratch) / (name.replace("/", "_") + (".cu" if args.cuda else ".cpp"))
            # Twice, so that a missing include guard shows too.
            unit.write_text(f"#include <{name}>\n#include <{name}>\n")
            if args.cuda:
                command = [args.compiler, "--std=c++20", "-x", "cu", "-c", "-o", unit.with_suffix(".o"),
                           "--Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra", "-I", args.include_dir, unit]
            else:
                command = [args.compiler, "-std=c++20", "-fsyntax-only", *common.WARNINGS, "-I", args.include_dir, unit]
                for directory in args.system:
                    command += ["-isystem", directory]
            result = common.run(command)
            return None if result.returncode == 0 else f"{name} does not compile alone:\n{result.stderr}{result.stdout}"

        problems = [p for p in common.side_by_side(problem_of, wanted) if p]
    names = ", ".join(h.name for h in left_out) or "none"
    common.finish(problems, f"{len(wanted)} headers with {args.compiler}; left out: {names}")


main()
