#!/usr/bin/env python3
"""Writes tests/vectors/<family>.json from tests/vectors/reference/<family>.py.

    python3 tests/vectors/generate.py                  write every family
    python3 tests/vectors/generate.py advantage        write the families named
    python3 tests/vectors/generate.py --check          write nothing; exit 1 if a file on disk differs

Needs mpmath (Debian: python3-mpmath). The output depends on nothing but the reference's text.
"""

import argparse
import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
HELPERS = {"__init__", "common"}
LIMIT = 400 * 1024


def families():
    """The reference modules that make a vector file."""
    return sorted(p.stem for p in (HERE / "reference").glob("*.py") if p.stem not in HELPERS)


def text_of(family):
    """The JSON text of one family."""
    common = importlib.import_module("reference.common")
    module = importlib.import_module(f"reference.{family}")
    cases = module.cases()
    text = common.to_json(family, cases)
    if len(text.encode()) > LIMIT:
        raise SystemExit(f"{family}.json would be {len(text.encode())} bytes, more than {LIMIT}")
    return text, len(cases)


def main():
    parser = argparse.ArgumentParser(description="Write or check the test vectors.")
    parser.add_argument("family", nargs="*", help="families to make; all when none is named")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file on disk differs")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    known = families()
    for name in arguments.family:
        if name not in known:
            parser.error(f"unknown family {name!r}; known: {', '.join(known)}")
    stale = 0
    for family in arguments.family or known:
        text, count = text_of(family)
        path = HERE / f"{family}.json"
        same = path.exists() and path.read_text() == text
        if arguments.check:
            stale += not same
            print(f"{family}: {count} cases, {'up to date' if same else 'DIFFERS from ' + path.name}")
            continue
        if not same:
            path.write_text(text)
        print(f"{family}: {count} cases, {'unchanged' if same else 'written'}")
    if not arguments.check:
        return 0
    modules = set(known)
    for path in sorted(HERE.glob("*.json")):
        if path.stem not in modules:
            stale += 1
            print(f"{path.name}: no reference module makes this file")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
