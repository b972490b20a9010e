"""Work that was left undone, and files that do not belong into the tree."""
import pathlib
import re
import sys

import common

PLACES = ["include", "tests", "examples", "benchmarks", "scripts", "cmake", "docs"]
TEXT = {".hpp", ".cuh", ".cpp", ".py", ".cmake", ".txt", ".md", ".in", ""}
# Spelled in two parts, so that this file does not find itself.
WORDS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "not impl" + "emented"]) + r")\b")
MAX_BYTES = 1024 * 1024


def main():
    root = pathlib.Path(sys.argv[1])
    files = [p for place in PLACES for p in sorted((root / place).rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    problems = []
    for path in files:
        name = path.relative_to(root)
        if path.stat().st_size > MAX_BYTES:
            problems.append(f"{name} is over 1 MiB")
        if path.suffix in TEXT:
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if WORDS.search(line):
                    problems.append(f"{name}:{number}: {line.strip()}")
    common.finish(problems, f"{len(files)} files")


main()
