"""Short runs of the cartpole program: what it writes and prints, that threads and repetition change no number, and that
every mistake is one sentence before anything is written."""
import csv
import json
import math
import os
import pathlib
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAM = os.path.abspath(sys.argv[1])
SHORT = ["--steps", "20480", "--no-curves"]


def called(folder, *options, limit=None):
    def limited():
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return subprocess.run([PROGRAM, *options], cwd=folder, capture_output=True, text=True, preexec_fn=limited)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def good_runs(folder):
    done = called(folder, *SHORT, "--env", "cartpole,acrobot", "--seeds", "3", "--threads", "2", "--out", "a")
    assert done.returncode == 0, done
    results = table(folder / "a/results.csv")
    assert [(r["environment"], r["seed"]) for r in results] == \
        [(name, str(seed)) for name in ("CartPole-v1", "Acrobot-v1") for seed in (1, 2, 3)], results
    for name in ("CartPole-v1", "Acrobot-v1"):
        scores = [float(r["episodic_return"]) for r in results if r["environment"] == name]
        printed = f"{statistics.fmean(scores):.2f} ± {statistics.pstdev(scores):.2f}"
        assert printed in done.stdout, (printed, done.stdout)
    assert "490.04 ± 6.12" in done.stdout and "-86.36 ± 1.32" in done.stdout, done.stdout
    assert "6 of 6 runs, 122880 steps" in done.stdout and "steps/s" in done.stdout, done.stdout

    rows = table(folder / "a/cartpole/seed-1.csv")
    assert [int(r["step"]) for r in rows] == list(range(4096, 20481, 4096)), rows
    assert rows[-1]["episodic_return"] == results[0]["episodic_return"], (rows[-1], results[0])
    assert all(math.isfinite(float(x)) for r in rows for x in r.values()), rows
    assert float(rows[-1]["episodic_return"]) > 2 * 25, rows  # a random policy gets 20 or so
    assert json.loads((folder / "a/config.json").read_text())["gae_lambda"] == 0.95
    # Nearly all of the first episodes of an acrobot are cut by the step limit.
    assert float(table(folder / "a/acrobot/seed-1.csv")[0]["episodic_return"]) < -400

    again = called(folder, *SHORT, "--env", "cartpole", "--seeds", "3", "--threads", "1", "--out", "b")
    assert again.returncode == 0, again
    for seed in (1, 2, 3):
        one, other = ((folder / f"{out}/cartpole/seed-{seed}.csv").read_bytes() for out in "ab")
        assert one == other, f"seed {seed} gives other numbers the second time"
    assert table(folder / "b/cartpole/seed-1.csv") != table(folder / "b/cartpole/seed-2.csv")

    # Half an acrobot run is of episodes that the step limit cuts: a value that follows them changes what is learnt.
    cut = called(folder, *SHORT, "--env", "acrobot", "--seeds", "1", "--bootstrap-truncated", "--out", "c")
    assert cut.returncode == 0, cut
    one, other = (table(folder / f"{out}/acrobot/seed-1.csv") for out in "ac")
    assert one[0]["loss"] != other[0]["loss"], one[0]


def refusals(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    for options, status, words in [
            (["--env", "pendulum"], 2, ["--env", "pendulum"]),
            (["--num-minibatches", "5", "--out", "n"], 1, ["--num-minibatches is 5", "512"]),
            (["--steps", "100", "--out", "n"], 1, ["--steps is 100", "512"]),
            (["--gamma", "1.5", "--out", "n"], 2, ["--gamma", "1.5"]),
            (["--num-envs", "0", "--out", "n"], 2, ["--num-envs", "0"]),
            (["--learning-rate", "fast", "--out", "n"], 2, ["--learning-rate", "fast"]),
            (["--seeds", "0", "--out", "n"], 2, ["--seeds", "0"]),
            (["--threads", "-1", "--out", "n"], 2, ["--threads", "-1"]),
            (["--lambda", "1"], 2, ["--lambda"]),
            ([*SHORT, "--out", "a"], 1, ["--out a", "--overwrite"]),
            ([*SHORT, "--out", "a/config.json/x"], 1, ["a/config.json/x"])]:
        done = called(folder, *options)
        sentence = done.stderr.strip()
        assert done.returncode == status, (options, done)
        assert all(word in sentence for word in words), (options, done)
        assert done.stdout == "" and "terminate" not in sentence, (options, done)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}, "a refused call has written something"

    full = called(folder, *SHORT, "--env", "cartpole", "--seeds", "1", "--updates-per-row", "1", "--out", "full",
                  limit=2048)
    assert full.returncode == 1 and "seed-1.csv" in full.stderr and "File too large" in full.stderr, full
    text = (folder / "full/cartpole/seed-1.csv").read_text()
    assert text.endswith("\n") and len(text) <= 2048, "the table of a full disk ends with half a row"


def interrupt(folder):
    options = ["--no-curves", "--env", "cartpole", "--seeds", "2", "--threads", "2", "--out", "i"]
    process = subprocess.Popen([PROGRAM, *options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    metrics = folder / "i/cartpole/seed-1.csv"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (metrics.exists() and metrics.read_text().count("\n") > 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors and "0 of 2 runs" in out, (out, errors)
    assert metrics.read_text().endswith("\n"), "the table of an interrupted run ends with half a row"


def curves(folder):
    """With a Python that has matplotlib, a picture; without, a sentence and no failure."""
    environment = dict(os.environ, GRPO_PLOT_PYTHON="/nonexistent/python3")
    done = subprocess.run([PROGRAM, "--steps", "8192", "--env", "acrobot", "--seeds", "1", "--out", "p"], cwd=folder,
                          env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "not drawn" in done.stderr and "Acrobot-v1" in done.stdout, done
    environment.pop("GRPO_PLOT_PYTHON")
    done = subprocess.run([PROGRAM, "--steps", "8192", "--env", "acrobot", "--seeds", "1", "--out", "q"], cwd=folder,
                          env=environment, capture_output=True, text=True)
    picture = folder / "q/acrobot/curves.svg"
    assert done.returncode == 0 and picture.exists() == ("not drawn" not in done.stderr), done
    assert not picture.exists() or "<svg" in picture.read_text(), done


def main():
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        good_runs(folder)
        refusals(folder)
        interrupt(folder)
        curves(folder)
    finally:
        shutil.rmtree(folder)


main()
