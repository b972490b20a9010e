"""What the checks share: compiling a file, running several compilers' worth of work side by side, and reporting."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
CORE_STANDARD_HEADERS = {"cmath", "cstdint", "cstddef", "type_traits", "concepts", "exception", "cstdio"}
SKIPPED = 77


def headers(include_dir):
    root = pathlib.Path(include_dir)
    return sorted(p for p in root.rglob("*") if p.suffix in {".hpp", ".cuh"})


def is_edge(header, include_dir):
    """Headers that may include more than the core: the adapters and the executors."""
    return header.relative_to(pathlib.Path(include_dir) / "grpo").parts[0] in {"adapt", "exec"}


def run(command, **options):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", **options)


def side_by_side(function, items):
    workers = min(4, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def finish(problems, done):
    """The end of every check: its findings and exit status 1, or one line of what was looked at."""
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problem(s); {done}")
        sys.exit(1)
    print(f"fine: {done}")


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)
