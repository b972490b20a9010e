#!/usr/bin/env python3
"""Six ways to train the calculator further from one SFT model, with the same number of sampled responses.

The comparison of DeepSeekMath's figure 5 (arXiv 2402.03300, section 5.2.1) and the analysis of its section 5.2.2, on
the calculator's task. Every seed has an SFT model of its own, from which every arm starts. All arms share prompts,
budget of sampled responses, learning rate and every other setting; what differs is named in ARMS. A run that is
finished is not done again, and one that was broken off goes on from its last checkpoint.
"""
import argparse
import concurrent.futures
import csv
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CURVES = os.path.join(HERE, os.pardir, "plot", "curves.py")
START = "SFT"
ARMS = {
    "RFT": ["--recipe=rft"],
    "Online RFT": ["--recipe=online_rft"],
    "GRPO+OS": ["--recipe=grpo", "--supervision=outcome"],
    "GRPO+PS": ["--recipe=grpo", "--supervision=process"],
    "PPO": ["--recipe=ppo"],
    "DPO": ["--recipe=dpo"],
}
PAPER_ORDER = ["RFT", "Online RFT", "GRPO+OS", "GRPO+PS"]
ACCURACY = "greedy accuracy"

# What the calculator's files are called.
RESULTS, METRICS, CHECKPOINT = "results.json", "metrics.csv", "checkpoint.bin"
SAMPLES, HELD_OUT = "samples", "held_out_accuracy"


def load_curves():
    specification = importlib.util.spec_from_file_location("curves", CURVES)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def fail(sentence, status=1):
    print(f"figure5: {sentence}", file=sys.stderr)
    sys.exit(status)


def write(path, text):
    """Beside its place, then renamed onto it."""
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as e:
        if os.path.exists(beside):
            os.remove(beside)
        fail(f"{path}: cannot be written ({e.strerror})")


def folder_of(out, seed, name):
    return os.path.join(out, f"seed-{seed}", name.lower().replace(" ", "-").replace("+", "-"))


class Interrupted(Exception):
    pass


class Runs:
    """Starts the calculator, as many at a time as there are workers, and remembers what was done."""

    def __init__(self, options):
        self.options = options
        self.children = set()
        self.lock = threading.Lock()
        self.stopping = False
        self.done = 0
        self.total = len(options.seeds) * (1 + len(options.arms))
        self.started = time.monotonic()

    def finished(self, folder):
        try:
            with open(os.path.join(folder, RESULTS), encoding="utf-8") as file:
                return ACCURACY in json.load(file)["after"]
        except (OSError, ValueError, KeyError):
            return False

    def command(self, folder, seed, arm):
        o = self.options
        words = [o.calculator, f"--out={folder}", f"--seed={seed}", f"--threads={o.threads}", *o.common]
        if arm == START:
            words += [f"--sft-steps={o.sft_steps}", "--steps=0"]
        else:
            start = os.path.join(folder_of(o.out, seed, START), CHECKPOINT)
            words += [f"--init={start}", f"--steps={o.steps}", *ARMS[arm]]
        if os.path.exists(os.path.join(folder, CHECKPOINT)):
            return words + ["--resume"]
        # What a run left that had not yet saved a checkpoint is begun anew.
        return words + (["--force"] if os.path.isdir(folder) and os.listdir(folder) else [])

    def run(self, seed, arm):
        folder = folder_of(self.options.out, seed, arm)
        if self.finished(folder):
            return self.report(seed, arm, "was done before")
        if self.stopping:
            raise Interrupted
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        words = self.command(folder, seed, arm)
        began = time.monotonic()
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.options.threads),
                           OPENBLAS_NUM_THREADS=str(self.options.threads))
        with open(folder + ".log", "a", encoding="utf-8") as log:
            print("$", *words, file=log, flush=True)
            # A session of its own: Ctrl-C is passed on by stop(), once.
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                     start_new_session=True)
            with self.lock:
                self.children.add(child)
            status = child.wait()
            with self.lock:
                self.children.discard(child)
        if self.stopping:
            raise Interrupted
        if status != 0 or not self.finished(folder):
            raise RuntimeError(f"seed {seed}, {arm}: the calculator ended with status {status}: {last_line(folder + '.log')}")
        how = "went on and is done" if "--resume" in words else "is done"
        self.report(seed, arm, f"{how} after {time.monotonic() - began:.0f} s")

    def report(self, seed, arm, what):
        with self.lock:
            self.done += 1
            minutes = (time.monotonic() - self.started) / 60
            print(f"{self.done:>3}/{self.total}  {minutes:5.1f} min  seed {seed}, {arm} {what}", flush=True)

    def stop(self, *_):
        """Children save their state on the first interrupt."""
        with self.lock:
            self.stopping = True
            for child in self.children:
                child.send_signal(signal.SIGINT)

    def all(self):
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGTERM, self.stop)
        failures = []
        with concurrent.futures.ThreadPoolExecutor(self.options.workers) as pool:
            for arms in ([START], self.options.arms):
                waiting = [pool.submit(self.run, seed, arm) for seed in self.options.seeds for arm in arms]
                for one in waiting:
                    try:
                        one.result()
                    except Interrupted:
                        pass
                    except (RuntimeError, OSError) as e:
                        failures.append(str(e))
                if failures or self.stopping:
                    break
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if failures:
            fail("\nfigure5: ".join(failures))
        if self.stopping:
            print("figure5: interrupted; the same command goes on from here", file=sys.stderr)
            sys.exit(130)


def last_line(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return "no output"
    return lines[-1] if lines else "no output"


def keep_settings(options):
    """One folder holds the runs of one set of settings; more seeds and arms may join."""
    settings = {"steps": options.steps, "sft_steps": options.sft_steps, "threads": options.threads,
                "common": options.common}
    path = os.path.join(options.out, "settings.json")
    try:
        os.makedirs(options.out, exist_ok=True)
    except OSError as e:
        fail(f"{options.out}: no folder can be made there ({e.strerror})")
    if os.path.exists(path):
        try:
            with open(path, encoding="utf-8") as file:
                before = json.load(file)
        except (OSError, ValueError):
            fail(f"{path}: cannot be read as the settings of earlier runs")
        for key, value in settings.items():
            if before.get(key) != value:
                fail(f"{options.out} holds runs with {key} {before.get(key)!r}, now it is {value!r}; choose another --out")
    else:
        write(path, json.dumps(settings, indent=2) + "\n")


# ---- what came out


def mean_and_half(values, student):
    """The mean and half its 95 % interval (Student's t); nan for one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, student(n - 1) * deviation / math.sqrt(n)


def plus_minus(values, student, signed=False):
    mean, half = mean_and_half([100 * v for v in values], student)
    sign = "+" if signed else ""
    return f"{mean:{sign}.1f}" if math.isnan(half) else f"{mean:{sign}.1f} ± {half:.1f}"


class Outcome:
    def __init__(self, options):
        self.seeds, self.arms = options.seeds, options.arms
        self.results = {}
        for seed in self.seeds:
            for arm in [START, *self.arms]:
                with open(os.path.join(folder_of(options.out, seed, arm), RESULTS), encoding="utf-8") as file:
                    self.results[seed, arm] = json.load(file)["after"]

    def of(self, arm, metric=ACCURACY):
        return [self.results[seed, arm][metric]["mean"] for seed in self.seeds]

    def difference(self, arm, other, metric=ACCURACY):
        return [a - b for a, b in zip(self.of(arm, metric), self.of(other, metric))]

    def metrics(self, prefix):
        names = [m for m in self.results[self.seeds[0], START] if m.startswith(prefix)]
        return sorted(names, key=lambda m: int(m[len(prefix):]))


def aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
             for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def tables(outcome, student):
    highest = outcome.metrics("maj@")[-1]
    most = outcome.metrics("pass@")[-1]
    base = outcome.arms[0]
    rows = [["arm", "greedy accuracy", f"less {base}, paired", f"less {START}, paired", highest, most]]
    for arm in [START, *outcome.arms]:
        rows.append([arm, plus_minus(outcome.of(arm), student),
                     "" if arm in (base, START) else plus_minus(outcome.difference(arm, base), student, True),
                     "" if arm == START else plus_minus(outcome.difference(arm, START), student, True),
                     plus_minus(outcome.of(arm, highest), student), plus_minus(outcome.of(arm, most), student)])
    text = [f"Held-out problems, per cent, mean over {len(outcome.seeds)} seeds ± 95 % interval (Student's t)", "",
            aligned(rows)]
    order = [arm for arm in PAPER_ORDER if arm in outcome.arms]
    if len(order) > 1:
        text += ["", "The paper's order " + " < ".join(order) + ", step by step, paired by seed", ""]
        for low, high in zip(order, order[1:]):
            difference = outcome.difference(high, low)
            mean, half = mean_and_half(difference, student)
            verdict = ("undecided" if math.isnan(half) or abs(mean) <= half else "holds" if mean > 0 else "is reversed")
            text.append(f"  {high} less {low}: {plus_minus(difference, student, True)}  ({verdict})")
    return "\n".join(text) + "\n\n" + sampling_table(outcome, student)


def sampling_table(outcome, student):
    """Section 5.2.2: what RL does to pass@k, and what to maj@k."""
    rows = [["less SFT, paired by seed", *outcome.arms]]
    for metric in [ACCURACY, *outcome.metrics("pass@"), *outcome.metrics("maj@")]:
        rows.append([metric, *(plus_minus(outcome.difference(arm, START, metric), student, True) for arm in outcome.arms)])
    return "Does training lift maj@k or pass@k? (section 5.2.2)\n\n" + aligned(rows) + "\n"


def sampling_plot(options, outcome):
    """pass@k and maj@k over k, before and after, as tables for the plot."""
    runs = []
    arm = next((a for a in ("GRPO+OS", "GRPO+PS") if a in outcome.arms), outcome.arms[-1])
    for seed in outcome.seeds:
        for name in (START, arm):
            folder = folder_of(options.out, seed, name)
            result = outcome.results[seed, name]
            for kind in ("pass", "maj"):
                lines = ["k,share"]
                for metric in outcome.metrics(kind + "@"):
                    lines.append(f"{metric[len(kind) + 1:]},{result[metric]['mean']!r}")
                if kind == "maj":
                    lines.insert(1, f"1,{result['pass@1']['mean']!r}")  # one vote decides
                path = f"{folder}-{kind}.csv"
                write(path, "\n".join(lines) + "\n")
                runs.append(f"--run={name} {kind}@k={path}")
    return [sys.executable, CURVES, f"--out={os.path.join(options.out, 'pass-and-maj.svg')}", "--x=k", "--log2-x",
            "--x-label=k", f"--title=What training changes: {arm} against its start",
            "--panel=share%=Held-out problems", "--band=t", *runs]


def learning_plot(options):
    runs = [f"--run={arm}={os.path.join(folder_of(options.out, seed, arm), METRICS)}"
            for arm in options.arms for seed in options.seeds]
    return [sys.executable, CURVES, f"--out={os.path.join(options.out, 'figure5.svg')}", f"--x={SAMPLES}",
            "--x-label=sampled responses", f"--panel={HELD_OUT}%=Held-out greedy accuracy (mean of {len(options.seeds)} "
            f"seeds, 95 % interval)", "--title=Six ways to train further from the same SFT model", "--band=t", *runs]


def draw(command):
    python = next((p for p in (sys.executable, "python3", "/usr/bin/python3") if subprocess.run(
        [p, "-c", "import matplotlib"], capture_output=True).returncode == 0), None)
    if python is None:
        print("figure5: no picture, for no Python here has matplotlib (Debian: python3-matplotlib)", file=sys.stderr)
        return
    if subprocess.run([python, *command[1:]]).returncode != 0:
        print("figure5: a picture could not be drawn", file=sys.stderr)


def seeds_of(text):
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected integers joined by commas, got {text!r}") from None
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"expected different seeds from 0, got {text!r}")
    return seeds


def arms_of(text):
    arms = text.split(",")
    for arm in arms:
        if arm not in ARMS:
            raise argparse.ArgumentTypeError(f"there is no arm {arm!r}; known are {', '.join(ARMS)}")
    if len(set(arms)) != len(arms):
        raise argparse.ArgumentTypeError(f"expected different arms, got {text!r}")
    return arms


def positive(text):
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an integer from 1, got {text!r}")
    return number


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calculator", required=True, help="the program")
    parser.add_argument("--out", default="figure5", help="folder for runs, pictures and tables (figure5)")
    parser.add_argument("--seeds", type=seeds_of, default=[1, 2, 3, 4, 5], help="joined by commas (1,2,3,4,5)")
    parser.add_argument("--arms", type=arms_of, default=list(ARMS), help="joined by commas (all: %s)" % ",".join(ARMS))
    parser.add_argument("--steps", type=positive, default=100, help="batches of sampled responses of each arm (100)")
    parser.add_argument("--sft-steps", type=positive, default=900, help="of the start (900)")
    parser.add_argument("--workers", type=positive, default=max(1, os.cpu_count() or 1),
                        help="runs at a time (as many as processors)")
    parser.add_argument("--threads", type=positive, default=1, help="of each run (1)")
    parser.add_argument("common", nargs="*", help="after --: options of the calculator for every run, SFT too")
    options = parser.parse_args()
    if not os.access(options.calculator, os.X_OK) or os.path.isdir(options.calculator):
        fail(f"--calculator: {options.calculator} is no program", 2)
    return options


def main():
    options = arguments()
    keep_settings(options)
    Runs(options).all()
    student = load_curves().student
    outcome = Outcome(options)
    text = tables(outcome, student)
    write(os.path.join(options.out, "figure5.txt"), text)
    write(os.path.join(options.out, "figure5.json"), json.dumps(
        {f"{arm}, seed {seed}": result for (seed, arm), result in outcome.results.items()}, indent=1) + "\n")
    print("\n" + text)
    draw(learning_plot(options))
    draw(sampling_plot(options, outcome))
    print(f"Pictures, tables and runs: {options.out}")


if __name__ == "__main__":
    main()
