#!/usr/bin/env python3
"""Compiles a test of tests/cuda and runs it where there is a device. Without one it is compiled all the same, and says so.

With --nvrtc the C++ compiler builds it, and its kernels are compiled when it runs: all of them where there is no device. (See
tests/emulator for what follows them there.)
"""
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
    parser.add_argument("source", type=pathlib.Path, help="a test_cuda_*.cu, or another without a main()")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where to build")
    parser.add_argument("--nvrtc", metavar="COMPILER", help="compile kernels at run time, and the test with this compiler")
    parser.add_argument("--device-only", action="store_true", help="do nothing without a device")
    parser.add_argument("--sanitize", nargs="+", default=[], metavar="TOOL", help="run under these tools of compute-sanitizer")
    parser.add_argument("--run", nargs="*", default=[""], metavar="VARIABLE=VALUE", help="run once under each of these")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tests = pathlib.Path(__file__).resolve().parent.parent
    main_file = str(tests / "cuda" / "main.cpp")
    includes = [f"-I{tests.parent / 'include'}", f"-I{tests}"]
    device = has_device()
    sanitizer = shutil.which("compute-sanitizer") or str(pathlib.Path(args.nvcc).resolve().parent / "compute-sanitizer")
    if args.device_only and not device:
        print("skipped: no device")
        return
    if args.sanitize and not (device and os.access(sanitizer, os.X_OK)):
        print("skipped: no device, or no compute-sanitizer")
        return
    libraries = ["-lcublas"] if "gemm/cublas.hpp" in args.source.read_text() else []
    if args.nvrtc:
        toolkit = pathlib.Path(args.nvcc).resolve().parent.parent
        program = args.folder / args.source.stem.replace("cuda", "nvrtc")
        run([args.nvrtc, "-std=c++20", "-O0", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-DGRPO_TEST_NVRTC",
             *includes, "-isystem", str(toolkit / "include"), "-x", "c++", str(args.source), main_file,
             "-o", str(program), f"-L{toolkit / 'lib64'}", f"-Wl,-rpath,{toolkit / 'lib64'}", "-lcudart", *libraries, "-ldl"])
        if not device and subprocess.run([str(program)]).returncode != 0:
            sys.exit(f"failed: {program}")
    else:
        # The frontend is what finds mistakes; fast code is for a device.
        target = ["-arch=native", "-O2", "-Xptxas", "-O1"] if device else ["-arch=compute_90", "-code=compute_90", "-Xcicc", "-O0"]
        program = args.folder / (args.source.stem + (".sanitized" if args.sanitize else ""))
        command = [args.nvcc, "-std=c++20", "-Werror", "all-warnings", *includes, *target, str(args.source)]
        if device:
            run([*command, main_file, "-o", str(program), *libraries])
        else:
            run([*command, "-c", "-o", f"{program}.o"])
            print("compiled; skipped: no device")
    if not device:
        return
    for tool in args.sanitize:
        if subprocess.run([sanitizer, "--tool", tool, "--error-exitcode", "1", str(program)]).returncode != 0:
            sys.exit(f"failed: {tool} {program}")
    if args.sanitize:
        return
    for setting in args.run:
        name, _, value = setting.partition("=")
        environment = dict(os.environ, **({name: value} if name else {}))
        if subprocess.run([str(program)], env=environment).returncode != 0:
            sys.exit(f"failed: {setting} {program}")


if __name__ == "__main__":
    main()
