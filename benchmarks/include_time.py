#!/usr/bin/env python3
"""What including the library costs a compiler: user and system time of -fsyntax-only, best of several, in turn."""
import pathlib
import resource
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADERS = ["grpo/grpo.hpp", "grpo/exec/threads.hpp", "grpo/exec/simd.hpp", "Eigen/Core"]
ROUNDS = 5


def seconds(command):
    """CPU time of one run, or None if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if subprocess.run(command, capture_output=True).returncode != 0:
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def command(compiler, folder, header):
    source = pathlib.Path(folder) / (header.replace("/", "_") + ".cpp")
    source.write_text(f"#include <{header}>\n")
    return [compiler, "-std=c++20", "-fsyntax-only", f"-I{ROOT}/include", "-I/usr/include/eigen3", str(source)]


def main():
    compilers = [c for c in ("g++", "clang++-16") if shutil.which(c)]
    rows = [(c, h, []) for c in compilers for h in HEADERS]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for compiler, header, times in rows:
                times.append(seconds(command(compiler, folder, header)))
    print(f"include time, best of {ROUNDS}, CPU seconds")
    for compiler, header, times in rows:
        print(f"  {compiler:12} {header:24} " + ("not found" if None in times else f"{min(times):.3f}"))


main()
