"""Seeds one wrong formula into a copy of the headers and shows that a test notices it.

tests/mutations.json holds {"mutations": [{"id", "file", "from", "to", "tests": [...], "why"}]}: `file` is relative to
include/grpo, `from` must stand in it exactly once, `tests` are test executables of which at least one must fail.
What stands after the list's id on the command line is added to the line that compiles and links: libraries, or the options
of the variant that notices the formula. Without an id: whether every text of the list still stands where it should.
Emulated tests (tests/emulator) compile their kernels when they run, from whatever headers GRPO_INCLUDE names: they are not
built again. A text that no longer matches, or a wrong formula that does not compile, is an error of the list.
"""
import json
import os
import pathlib
import shlex
import shutil
import sys
import tempfile

import common


def misplaced(mutation, include_dir):
    """Why the formula cannot be changed, or nothing."""
    header = pathlib.Path(include_dir) / "grpo" / mutation["file"]
    if not header.exists():
        return f"{mutation['id']}: there is no header {mutation['file']}"
    times = header.read_text().count(mutation["from"])
    if times != 1 or mutation["from"] == mutation["to"]:
        return (f"{mutation['id']}: its 'from' stands {times} times in {mutation['file']}, and must stand there once "
                f"and differ from 'to':\n{mutation['from']}")
    return None


def seed(mutation, include_dir, scratch):
    """A copy of the headers with the one formula changed."""
    if why := misplaced(mutation, include_dir):
        sys.exit(why)
    copy = pathlib.Path(scratch) / "include"
    shutil.copytree(include_dir, copy)
    header = copy / "grpo" / mutation["file"]
    header.write_text(header.read_text().replace(mutation["from"], mutation["to"]))
    return copy


def compile_line(commands, test):
    """The words of the build's own compile line of a test, without its output and source."""
    for command in commands:
        if pathlib.PurePath(command["file"]).name == f"{test}.cpp" and f"{test}.dir/" in command["command"]:
            words = shlex.split(command["command"])
            del words[words.index("-o"):words.index("-o") + 2]
            words.remove("-c")
            words.remove(command["file"])
            return words, command["file"]
    sys.exit(f"the build has no test executable {test}")


def emulated(test, copy, build):
    """The same of a test whose kernels are compiled when it runs; told from one whose kernels do not compile."""
    # Only kernels that are launched, until the first assertion that fails.
    environment = dict(os.environ, GRPO_INCLUDE=str(copy), GRPO_COMPILED_ELSEWHERE="1")
    ran = common.run([build / "tests" / test, "--abort-after=1"], timeout=240, env=environment)
    if "[doctest] assertions:" not in ran.stdout:
        sys.exit(f"the seeded header does not compile in {test}:\n{ran.stdout[:6000]}{ran.stderr[:2000]}")
    return "passes" if ran.returncode == 0 else "notices"


def outcome(test, commands, include_dir, copy, build, scratch, link):
    """What the test does with the seeded headers: 'notices' or 'passes'. Refuses what does not compile."""
    if test.startswith("test_emulated_"):
        return emulated(test, copy, build)
    words, source = compile_line(commands, test)
    seeded = [w.replace(str(include_dir), str(copy)) for w in words]
    if seeded == words:
        sys.exit(f"the compile line of {test} does not name {include_dir}")
    main_object = next(iter((build / "tests").glob("CMakeFiles/grpo_test_main.plain.dir/doctest_main.*.o")), None)
    if main_object is None:
        sys.exit("the build holds no compiled doctest main; build the tests first")
    binary = pathlib.Path(scratch) / test
    built = common.run([*seeded, "-O0", "-w", source, main_object, "-o", binary, "-pthread",
                        *link])
    if built.returncode != 0:
        sys.exit(f"the seeded header does not compile in {test}:\n{built.stderr[:6000]}")
    try:
        ran = common.run([binary], timeout=120)
    except Exception as slow:
        return f"notices (it did not end: {slow})"
    return "passes" if ran.returncode == 0 else "notices"


def main():
    list_file, build, include_dir = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    listed = json.loads(list_file.read_text())["mutations"]
    if len(sys.argv) == 4:
        wrong = [why for m in listed if (why := misplaced(m, include_dir))]
        if wrong:
            sys.exit("\n".join(wrong))
        print(f"{len(listed)} seeded formulas: the text of each stands once")
        return
    wanted = sys.argv[4]
    mutations = [m for m in listed if m["id"] == wanted]
    if len(mutations) != 1:
        sys.exit(f"the list has {len(mutations)} entries called {wanted}, and must have one")
    mutation = mutations[0]
    commands = json.loads((build / "compile_commands.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        copy = seed(mutation, include_dir, scratch)
        for test in mutation["tests"]:
            seen = outcome(test, commands, include_dir, copy, build, scratch, sys.argv[5:])
            print(f"{wanted}: {test} {seen}")
            if seen != "passes":
                return
    sys.exit(f"{wanted}: no test notices that {mutation['file']} says\n    {mutation['to']}\ninstead of\n    {mutation['from']}")


main()
