#!/usr/bin/env python3
"""What ptxas says of the kernels over rows of logits, and of those over tokens and groups: nothing in local memory (so no spills
either), and for the first two blocks' worth of registers at most."""
import argparse
import re
import subprocess
import sys

FEWEST_KERNELS = 6
MOST_REGISTERS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nvcc")
    parser.add_argument("include")
    parser.add_argument("source", help="what instantiates them")
    parser.add_argument("output")
    args = parser.parse_args()
    command = [args.nvcc, "-std=c++20", "-O3", "-arch=sm_90", "-Werror", "all-warnings", "-Xptxas", "-v", f"-I{args.include}",
               "-cubin", args.source, "-o", args.output]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr[:8000])
    kernels = re.findall(r"Compiling entry function '(\w*walk_long_rowsILb[01]ELb1\w*)'.*?(\d+) bytes stack frame.*?"
                         r"Used (\d+) registers", done.stderr, re.S)
    wrong = [f"{name[:60]}...: {stack} bytes of local memory, {registers} registers" for name, stack, registers in kernels
             if int(stack) > 0 or int(registers) > MOST_REGISTERS]
    if len(kernels) < FEWEST_KERNELS:
        wrong.append(f"only {len(kernels)} kernels with a ring were found")
    small = re.findall(r"Compiling entry function '\w*(?:fold_kernel|walk_rows)INS1_\d+(loss_rows|weight_rows|gae_rows|group_rows)\w*'.*?"
                       r"(\d+) bytes stack frame", done.stderr, re.S)
    wrong += [f"{body}: {stack} bytes of local memory" for body, stack in small if int(stack) > 0]
    if len({body for body, _ in small}) < 4:
        wrong.append("kernels of token losses, corrections, GAE or groups are missing")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"fine: {len(kernels)} kernels, at most {max(int(k[2]) for k in kernels)} registers; {len(small)} over tokens and groups; nothing in local memory")


if __name__ == "__main__":
    main()
