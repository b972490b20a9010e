#!/usr/bin/env python3
"""Compiles a test of tests/cuda and runs it where there is a device. Without one it is compiled all the same, and says so."""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(command)}\n{(done.stdout + done.stderr)[:8000]}")


def has_device() -> bool:
    smi = shutil.which("nvidia-smi")
    return smi is not None and subprocess.run([smi, "-L"], capture_output=True).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nvcc")
    parser.add_argument("source", type=pathlib.Path, help="a test_cuda_*.cu")
    parser.add_argument("folder", type=pathlib.Path, help="where to build")
    parser.add_argument("--run", nargs="*", default=[""], metavar="VARIABLE=VALUE", help="run once under each of these")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tests = args.source.resolve().parent
    includes = [f"-I{tests.parent.parent / 'include'}", f"-I{tests.parent}"]
    device = has_device()
    # The frontend is what finds mistakes; fast code is for a device.
    target = ["-arch=native", "-O2", "-Xptxas", "-O1"] if device else ["-arch=compute_90", "-code=compute_90", "-Xcicc", "-O0"]
    program = args.folder / args.source.stem
    text = args.source.read_text()
    libraries = ["-lcublas"] if "gemm/cublas.hpp" in text else []
    command = [args.nvcc, "-std=c++20", "-Werror", "all-warnings", *includes, *target, str(args.source)]
    if not device:
        run([*command, "-c", "-o", f"{program}.o"])
        print("compiled; skipped: no device")
        return
    run([*command, str(tests / "main.cpp"), "-o", str(program), *libraries])
    for setting in args.run:
        name, _, value = setting.partition("=")
        environment = dict(os.environ, **({name: value} if name else {}))
        if subprocess.run([str(program)], env=environment).returncode != 0:
            sys.exit(f"failed: {setting} {program}")


if __name__ == "__main__":
    main()
