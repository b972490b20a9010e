"""Whole runs of the calculator with a tiny model: they learn, go on exactly where they stopped, and refuse what is wrong."""
import csv
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CALCULATOR, TABLE = sys.argv[1:]
TASK = ["--lengths", "0.5", "0.5", "0", "0", "--operations", "0.5", "0.5", "0", "0", "--parentheses=0",
        "--largest-term=6", "--largest-value=18"]
MODEL = ["--layers=1", "--width=32", "--heads=4"]
COMMON = [*TASK, *MODEL, "--sft-examples=400", "--sft-batch=32", "--held-out=20", "--curve-problems=10", "--samples=4",
          "--threads=1"]
EASY = ["--lengths", "1", "0", "0", "0", "--operations", "0.5", "0.5", "0", "0", "--largest-term=12",
        "--largest-value=24", "--layers=2", "--width=32", "--heads=4", "--sft-examples=400", "--sft-batch=32",
        "--held-out=15", "--curve-problems=10", "--samples=4", "--threads=1", "--learning-rate=2e-3"]
QUICK = [*COMMON, "--groups=4", "--group-size=4", "--evaluate-every=3", "--save-every=4"]


def start(out, *options, limit=None):
    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    last = {o.split("=")[0]: k for k, o in enumerate(options)}
    options = [o for k, o in enumerate(options) if "=" not in o or last[o.split("=")[0]] == k]  # the later one counts
    environment = dict(os.environ, GRPO_PLOT_PYTHON="/nonexistent/python")
    return subprocess.Popen([CALCULATOR, f"--out={out}", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=environment, preexec_fn=small_disk if limit else None)


def run(out, *options, status=0, limit=None):
    child = start(out, *options, limit=limit)
    said, complained = child.communicate()
    assert child.returncode == status, (options, child.returncode, complained[-2000:])
    return said, complained


def refused(status, part, out, *options, limit=None):
    """One sentence, and whatever was there is as it was."""
    before = contents(out)
    _, complained = run(out, *options, status=status, limit=limit)
    lines = complained.strip().splitlines()
    assert part in lines[-1] and lines[-1].startswith("calculator: "), (part, complained)
    assert contents(out) == before, (part, "something was written")
    return lines


def contents(folder):
    folder = pathlib.Path(folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}


def rows(out, name="metrics.csv"):
    with open(os.path.join(out, name), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def learns(place):
    """Rewards get better; the number of threads changes nothing."""
    options = [*EASY, "--sft-steps=150", "--steps=60", "--groups=16", "--group-size=8", "--evaluate-every=20", "--seed=5"]
    said, _ = run(place / "learned", *options)
    reward = [float(r["reward"]) for r in rows(place / "learned") if r["reward"]]
    assert len(reward) == 60
    first, last = mean(reward[:10]), mean(reward[-10:])
    assert last > first + 0.1, (first, last)
    result = json.loads((place / "learned" / "results.json").read_text())
    assert re.search(r"greedy accuracy +[\d.]+ +[\d.]+ to [\d.]+ +[\d.]+ +[\d.]+ to [\d.]+ +[+-][\d.]+", said), said
    assert result["samples"] == 60 * 16 * 8
    config = json.loads((place / "learned" / "config.json").read_text())
    assert config["seed"] == 5 and config["recipe"] == "dapo" and config["model"]["width"] == 32

    few = [*COMMON, "--sft-steps=8", "--steps=3", "--groups=48", "--group-size=4"]
    run(place / "one", *few)
    run(place / "three", *few, "--threads=3")
    assert same_numbers(place / "one", place / "three")
    run(place / "other", *few, "--seed=2")
    assert not same_numbers(place / "one", place / "other")
    return first, last


def recovers(place):
    """At a far too high rate training collapses; the guard notices, goes back, and ends better than without it."""
    options = [*EASY, f"--init={place}/learned/checkpoint.bin", "--seed=5", "--steps=30", "--groups=8", "--group-size=8",
               "--learning-rate=0.1", "--evaluate-every=0"]
    _, complained = run(place / "guarded", *options)
    _, silent = run(place / "unguarded", *options, "--no-guard")
    guarded, unguarded = (mean(float(r["reward"]) for r in rows(place / n)[-5:]) for n in ("guarded", "unguarded"))
    assert "training collapsed" in complained and "training collapsed" not in silent
    times = json.loads((place / "guarded" / "results.json").read_text())["rollbacks"]
    assert times == complained.count("training collapsed") and guarded > unguarded + 0.1, (times, guarded, unguarded)


def same_numbers(a, b):
    return all((a / n).read_bytes() == (b / n).read_bytes() for n in ("sft.csv", "metrics.csv", "results.json"))


def wait_for_rows(out, name, count, child):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        try:
            if (out / name).read_text(encoding="utf-8").count("\n") > count:
                return
        except OSError:
            pass
        time.sleep(0.002)
    raise AssertionError((name, "the run ended before it could be interrupted", child.returncode))


def goes_on(place):
    """Interrupted in imitation and in reinforcement, and killed: the end is that of the unbroken run, to the bit."""
    options = [*QUICK, "--sft-steps=40", "--steps=30", "--inner-steps=2", "--recipe=grpo", "--reference-refresh=5"]
    run(place / "unbroken", *options)
    out = place / "broken"
    for number, (table, count, how) in enumerate((("sft.csv", 10, signal.SIGINT), ("metrics.csv", 5, signal.SIGINT),
                                                  ("metrics.csv", 13, signal.SIGKILL))):
        child = start(out, *options, *(["--resume"] if number else []))
        wait_for_rows(out, table, count, child)
        child.send_signal(how)
        _, complained = child.communicate()
        if how == signal.SIGINT:
            assert child.returncode == 130 and "--resume goes on" in complained, (child.returncode, complained)
        assert not (out / "results.json").exists()
    run(out, *options, "--resume")
    assert same_numbers(place / "unbroken", out)
    assert rows(out, "timing.csv")[-1]["step"] == "30"
    before = contents(out)
    run(out, *options, "--resume")
    after = contents(out)
    assert before["metrics.csv"] == after["metrics.csv"] and before["results.json"] == after["results.json"]

    refused(2, "is there already; --resume goes on with the run in it, --force replaces it", out, *options)
    refused(1, "is of another run: steps is 30 there and 31 here", out, *options, "--resume", "--steps=31")
    refused(1, "checkpoint.bin", out, *options, "--resume", limit=20000)
    whole = (out / "checkpoint.bin").read_bytes()
    (out / "checkpoint.bin").write_bytes(whole[:len(whole) // 2])
    refused(1, "is no checkpoint of this program, or a damaged one", out, *options, "--resume")
    (out / "checkpoint.bin").write_bytes(whole)
    run(out, *options, "--force", "--seed=9")
    assert not same_numbers(place / "unbroken", out)


def every_recipe(place, start_of):
    names = re.findall(r"f\((\w+)\(\)\)", pathlib.Path(TABLE).read_text(encoding="utf-8"))
    assert len(names) == len(set(names)) and len(names) > 50, names
    for name in names:
        run(place / name, *QUICK, f"--init={start_of}", f"--recipe={name}", "--steps=2", "--evaluate-every=0",
            "--groups=8", "--held-out=4", "--samples=1")
        found = rows(place / name)
        assert len(found) == 2 and any(float(r["gradient_norm"]) > 0 for r in found), (name, found)
        samples = 0 if name in ("sft", "dft") else 2 * 8 * 4
        assert int(float(found[-1]["samples"])) == samples, (name, found)
    return len(names)


def other_ways(place, start_of):
    begun = [*QUICK, f"--init={start_of}", "--steps=3"]
    run(place / "process", *begun, "--recipe=grpo", "--supervision=process")
    run(place / "outcome", *begun, "--recipe=grpo", "--supervision=outcome")
    assert (place / "process" / "metrics.csv").read_bytes() != (place / "outcome" / "metrics.csv").read_bytes()
    run(place / "dynamic", *begun, "--dynamic-sampling", "--overlong=8", "--kl=0.01", "--temperature=0.9")
    assert all(float(r["useful_groups"]) >= float(o["useful_groups"])
               for r, o in zip(rows(place / "dynamic")[1:2], rows(place / "outcome")[1:2]))
    run(place / "budget", *begun, "--max-samples=20")
    assert rows(place / "budget")[-1]["samples"] == "32"


def bad_input(place, start_of):
    new = place / "new"
    refused(2, 'name is "gprpo", which no recipe has; nearest are grpo, gspo', new, *QUICK, "--recipe=gprpo")
    refused(2, "which the recipe rloo does not do", new, *QUICK, "--recipe=rloo", "--supervision=process")
    refused(2, "--heads: is 5, which does not divide the --width 32", new, *QUICK, "--heads=5")
    refused(2, "--context: is 3, but the problems need", new, *QUICK, "--context=3")
    refused(2, "there is no", new, *QUICK, "--resume")
    refused(1, "width is 32 there and 64 here", new, *QUICK, "--width=64", f"--init={start_of}")
    refused(1, "is no checkpoint of this program", new, *QUICK, f"--init={__file__}")
    refused(1, "missing.bin", new, *QUICK, f"--init={place}/missing.bin")
    refused(1, "train.jsonl", new, *QUICK, f"--gsm8k={place}")
    data = place / "data"
    data.mkdir()
    (data / "train.jsonl").write_text('{"question": "q", "answer": "<<1+2=3>>"}\n{"question": \n')
    (data / "test.jsonl").write_text('{"question": "q", "answer": "<<2+2=4>>"}\n')
    refused(1, "train.jsonl:2:", new, *QUICK, f"--gsm8k={data}")
    for wrong, part in (("--steps=-1", "--steps: -1 is not 0 or a number above 0"), ("--groups=0", "--groups: 0 is not a number above 0"),
                        ("--temperature=nan", "--temperature: nan is not a number above 0"), ("--supervision=none", "--supervision"),
                        ("--nonsense", "--nonsense")):
        _, complained = run(new, *QUICK, wrong, status=2)
        assert part in complained, (wrong, complained)
    assert not new.exists()
    refused(1, "config.json", new, *QUICK, limit=64)


def main():
    place = pathlib.Path(tempfile.mkdtemp())
    try:
        first, last = learns(place)
        recovers(place)
        start_of = place / "start" / "checkpoint.bin"
        run(place / "start", *COMMON, "--sft-steps=120", "--steps=0")
        goes_on(place)
        count = every_recipe(place / "recipes", start_of)
        other_ways(place, start_of)
        bad_input(place, start_of)
    finally:
        shutil.rmtree(place)
    print(f"calculator runs: rewards went from {first:.3f} to {last:.3f}; {count} recipes ran")


main()
