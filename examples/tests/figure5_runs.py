"""The figure-5 driver with the real calculator, a tiny model and a few steps: finishing, skipping, going on, refusing."""
import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

DRIVER, CALCULATOR, *TINY = sys.argv[1:]


def words(out, *options, common=TINY, calculator=CALCULATOR):
    return [sys.executable, DRIVER, "--calculator", calculator, "--out", out, "--arms=RFT,GRPO+OS", "--seeds=3",
            "--sft-steps=6", "--steps=4", "--workers=1", "--learning-rates=1e-3", *options, "--", *common]


def run(*arguments, **settings):
    return subprocess.run(words(*arguments, **settings), capture_output=True, text=True)


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def refused(status, part, *arguments, **settings):
    result = run(*arguments, **settings)
    assert result.returncode == status and part in result.stderr and "Traceback" not in result.stderr, (part, result)


def numbers(out, text):
    """The table's numbers by another road, from the files of the runs."""
    def share(arm):
        return json.loads(read(out, "seed-3", arm, "results.json"))["after"]["greedy accuracy"]["mean"]
    for arm, folder in (("SFT", "sft"), ("RFT", "rft"), ("GRPO+OS", "grpo-os")):
        line = next(l for l in text.splitlines() if l.startswith(arm + " "))
        assert line.split()[1] == f"{100 * share(folder):.1f}", (line, share(folder))
    line = next(l for l in text.splitlines() if l.startswith("GRPO+OS "))
    assert line.split()[2] == f"{100 * (share('grpo-os') - share('rft')):+.1f}", line


def intervals(place):
    """Intervals over seeds and the tables, against the formula on known numbers: t(4) = 2.776, t(1) = 12.706."""
    sys.path.insert(0, os.path.dirname(DRIVER))
    import figure5
    student = figure5.load_curves().student
    values = [0.51, 0.55, 0.49, 0.58, 0.52]
    half = 2.776 * statistics.stdev(values) / 5 ** 0.5
    mean, got = figure5.mean_and_half(values, student)
    assert abs(mean - statistics.mean(values)) < 1e-12 and abs(got - half) < 1e-12
    assert figure5.plus_minus(values, student, True) == f"+53.0 ± {100 * half:.1f}"

    shares = {("sft", 1): 0.4, ("sft", 2): 0.4, ("rft", 1): 0.5, ("rft", 2): 0.6, ("grpo-os", 1): 0.6, ("grpo-os", 2): 0.64}
    for (arm, seed), share in shares.items():
        os.makedirs(os.path.join(place, f"seed-{seed}", arm))
        after = {"greedy accuracy": share, "pass@1": 0.3, "pass@4": 0.8, "maj@4": share / 2}
        with open(os.path.join(place, f"seed-{seed}", arm, "results.json"), "w", encoding="utf-8") as file:
            json.dump({"after": {name: {"mean": mean} for name, mean in after.items()}}, file)
    outcome = figure5.Outcome(argparse.Namespace(out=place, seeds=[1, 2], arms=["RFT", "GRPO+OS"]))
    text = re.sub(" +", " ", figure5.tables(outcome, student))
    for line in ("SFT 40.0 ± 0.0 20.0 ± 0.0 80.0 ± 0.0", "RFT 55.0 ± 63.5 +15.0 ± 63.5 27.5 ± 31.8 80.0 ± 0.0",
                 "GRPO+OS 62.0 ± 25.4 +7.0 ± 38.1 +22.0 ± 25.4 31.0 ± 12.7 80.0 ± 0.0",
                 "GRPO+OS less RFT: +7.0 ± 38.1 (undecided)", "maj@4 +7.5 ± 31.8 +11.0 ± 12.7", "pass@4 +0.0 ± 0.0 +0.0 ± 0.0"):
        assert line in text, (line, text)


def main():
    with tempfile.TemporaryDirectory() as place:
        intervals(os.path.join(place, "known"))
        out = os.path.join(place, "runs")
        first = run(out)
        assert first.returncode == 0, first
        assert len(re.findall("is done after", first.stdout)) == 3, first.stdout
        numbers(out, first.stdout)
        if "no Python here has matplotlib" not in first.stderr:
            for picture in ("figure5.svg", "pass-and-maj.svg"):
                xml.etree.ElementTree.fromstring(read(out, picture))
        files = {name: read(out, "seed-3", arm, name) for arm in ("sft", "rft", "grpo-os")
                 for name in ("results.json", "metrics.csv")}
        table = read(out, "figure5.txt")

        # Everything is there: nothing is done again.
        again = run(out)
        assert again.returncode == 0 and len(re.findall("was done before", again.stdout)) == 3, again
        assert read(out, "figure5.txt") == table

        # A run without its last file goes on from its checkpoint and comes to the same.
        os.remove(os.path.join(out, "seed-3", "grpo-os", "results.json"))
        more = run(out)
        assert more.returncode == 0 and "GRPO+OS went on and is done" in more.stdout, more
        assert read(out, "figure5.txt") == table
        assert read(out, "seed-3", "grpo-os", "metrics.csv") == files["metrics.csv"]

        interrupted(os.path.join(place, "broken"), table)

        tuned(os.path.join(place, "tuned"))
        refused(2, "--tuning-seed: expected one", out, "--tuning-seed=3")
        refused(2, "expected different numbers between 0 and 1", out, "--learning-rates=1e-3,2")
        refused(1, "holds runs with steps 4, now it is 5", out, "--steps=5")
        refused(2, "there is no arm 'GRPO'", out, "--arms=GRPO")
        refused(2, "expected different seeds", out, "--seeds=1,1")
        refused(2, "expected integers joined by commas", out, "--seeds=x")
        refused(2, "expected an integer from 1", out, "--steps=0")
        refused(2, "is no program", out, calculator=os.path.join(place, "none"))
        refused(1, "seed 3, SFT: the calculator ended with status", os.path.join(place, "other"),
                common=["--no-such-option=1"])
        with open(os.path.join(place, "file"), "w", encoding="utf-8"):
            pass
        refused(1, "no folder can be made there", os.path.join(place, "file", "runs"))
        shutil.rmtree(out)
    print("figure5: finishes, skips, goes on, and refuses")


def tuned(out):
    """Each arm has the learning rate that was best from the start kept for that."""
    result = run(out, "--learning-rates=1e-3,1e-5", "--tuning-seed=7")
    assert result.returncode == 0, result
    for arm, folder in (("RFT", "rft"), ("GRPO+OS", "grpo-os")):
        accuracy = {rate: json.loads(read(out, "seed-7", f"{folder}-rate-{rate}", "results.json"))["after"]["greedy accuracy"]
                    ["mean"] for rate in ("0.001", "1e-05")}
        best = "0.001" if accuracy["0.001"] > accuracy["1e-05"] else "1e-05"
        assert f"{arm} {best}" in result.stdout.split("Learning rates: ")[1], (accuracy, result.stdout)
        assert json.loads(read(out, "seed-3", folder, "config.json"))["learning_rate"] == float(best)


def interrupted(out, table):
    """Ctrl-C in the middle: the same command goes on to the same table."""
    child = subprocess.Popen(words(out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not os.path.exists(os.path.join(out, "seed-3", "rft.log")) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate()
    assert child.returncode == 130 and "the same command goes on from here" in error, (child.returncode, error)
    assert not os.path.exists(os.path.join(out, "figure5.txt"))
    result = run(out)
    assert result.returncode == 0 and "SFT was done before" in result.stdout, result
    assert read(out, "figure5.txt") == table


main()
