"""The price of composition: a loss made of terms executes at most 1.10 times the instructions of the hand-written loop.

Counted, not timed, so the answer does not depend on the machine's load: callgrind runs benchmarks/instructions.cpp with
one and with three evaluations, and half of the difference is what one evaluation costs.
usage: instructions.py PROJECT COMPILER...
"""
import pathlib
import re
import shutil
import sys
import tempfile

import common

LIMIT = 1.10
FEW, MANY = 1, 3
TOKENS = 64 * 1024  # of the batch in instructions.cpp


class Failed(Exception):
    pass


def checked(command):
    result = common.run(command)
    if result.returncode != 0:
        raise Failed(f"{command[0]} ended with {result.returncode}:\n{result.stderr}")
    return result


def collected(program, contestant, repeats):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, contestant, repeats]
    found = re.search(r"Collected : (\d+)", checked(command).stderr)
    if not found:
        raise Failed("callgrind printed no count")
    return int(found.group(1))


def per_evaluation(program, contestant):
    return (collected(program, contestant, MANY) - collected(program, contestant, FEW)) / (MANY - FEW)


def same_answer(program):
    """Both loops must compute the same thing before their instructions are compared."""
    answers = [[float(x) for x in checked([program, who, FEW]).stdout.split()] for who in ("hand", "composed")]
    return all(abs(a - b) <= 1e-5 * abs(a) for a, b in zip(*answers, strict=True))


def measured(root, compiler, folder):
    program = pathlib.Path(folder) / ("instructions." + pathlib.Path(compiler).name)
    checked([compiler, "-std=c++20", "-O2", *common.WARNINGS, "-I", root / "include",
             root / "benchmarks" / "instructions.cpp", "-o", program])
    if not same_answer(program):
        raise Failed("the two loops disagree")
    hand, composed = per_evaluation(program, "hand"), per_evaluation(program, "composed")
    return hand, composed


def examine(root, compiler, folder):
    name = pathlib.Path(compiler).name
    try:
        hand, composed = measured(root, compiler, folder)
    except Failed as failure:
        return f"{name}: {failure}", ""
    line = f"{name}: {composed / TOKENS:.1f} instructions per token, by hand {hand / TOKENS:.1f}, ratio {composed / hand:.3f}"
    return (f"{line}, over {LIMIT}" if composed > LIMIT * hand else ""), line


def main():
    root, compilers = pathlib.Path(sys.argv[1]), sys.argv[2:]
    if not shutil.which("valgrind"):
        common.skip("needs valgrind")
    with tempfile.TemporaryDirectory() as folder:
        results = common.side_by_side(lambda compiler: examine(root, compiler, folder), compilers)
    common.finish([problem for problem, _ in results if problem], "; ".join(line for _, line in results if line))


main()
