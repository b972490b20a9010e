#!/usr/bin/env python3
"""Six ways to train the calculator further from one SFT model, with the same number of sampled responses.

The comparison of DeepSeekMath's figure 5 (arXiv 2402.03300, section 5.2.1) and the analysis of its section 5.2.2, on
the calculator's task. Every seed has an SFT model of its own, from which every arm starts. All arms share prompts,
budget of sampled responses and every other setting; what differs is named in ARMS. With several --learning-rates each
arm has the best of these few for it, by the held-out accuracy of one run each from a start that is used for nothing
else. A run that is finished is not done again, and one that was broken off goes on from its last checkpoint.
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
# Harder than what the calculator makes by default, so that a start has much to learn.
TASK = ["--operations", "0.3", "0.3", "0.2", "0.2", "--parentheses=0.2"]
# For a smooth curve, where the command does not say otherwise.
CURVE = {"--evaluate-every": 10, "--curve-problems": 500}
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


def folder_of(out, seed, name, rate=None):
    """Of a run; of one that tries a learning rate where that is given."""
    name = name.lower().replace(" ", "-").replace("+", "-")
    return os.path.join(out, f"seed-{seed}", name if rate is None else f"{name}-rate-{rate:g}")


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
        self.rates = dict.fromkeys(options.arms, options.learning_rates[0])
        if self.tunes():
            self.total += 1 + len(options.arms) * len(options.learning_rates)
        self.started = time.monotonic()

    def finished(self, folder):
        try:
            with open(os.path.join(folder, RESULTS), encoding="utf-8") as file:
                return ACCURACY in json.load(file)["after"]
        except (OSError, ValueError, KeyError):
            return False

    def tunes(self):
        return len(self.options.learning_rates) > 1

    def command(self, folder, seed, arm, rate):
        o = self.options
        curve = [f"{name}={value}" for name, value in CURVE.items() if not any(c.startswith(name) for c in o.common)]
        task = [] if any(c.startswith(("--gsm8k", "--operations", "--parentheses")) for c in o.common) else TASK
        words = [o.calculator, f"--out={folder}", f"--seed={seed}", f"--threads={o.threads}", *task, *curve, *o.common]
        if arm == START:
            words += [f"--sft-steps={o.sft_steps}", "--steps=0"]
        else:
            start = os.path.join(folder_of(o.out, seed, START), CHECKPOINT)
            words += [f"--init={start}", f"--steps={o.steps}", *ARMS[arm]]
            words.append(f"--learning-rate={rate or self.rates[arm]:g}")
        if os.path.exists(os.path.join(folder, CHECKPOINT)):
            return words + ["--resume"]
        # What a run left that had not yet saved a checkpoint is begun anew.
        return words + (["--force"] if os.path.isdir(folder) and os.listdir(folder) else [])

    def run(self, seed, arm, rate=None):
        folder = folder_of(self.options.out, seed, arm, rate)
        what = f"seed {seed}, {arm}" + ("" if rate is None else f" at {rate:g}")
        if self.finished(folder):
            return self.report(f"{what} was done before")
        if self.stopping:
            raise Interrupted
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        words = self.command(folder, seed, arm, rate)
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
            raise RuntimeError(f"{what}: the calculator ended with status {status}: {last_line(folder + '.log')}")
        how = "went on and is done" if "--resume" in words else "is done"
        self.report(f"{what} {how} after {time.monotonic() - began:.0f} s")

    def report(self, what):
        with self.lock:
            self.done += 1
            minutes = (time.monotonic() - self.started) / 60
            print(f"{self.done:>3}/{self.total}  {minutes:5.1f} min  {what}", flush=True)

    def stop(self, *_):
        """Children save their state on the first interrupt."""
        with self.lock:
            self.stopping = True
            for child in self.children:
                child.send_signal(signal.SIGINT)

    def all(self):
        o = self.options
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGTERM, self.stop)
        with concurrent.futures.ThreadPoolExecutor(o.workers) as pool:
            if self.tunes():
                self.together(pool, [(o.tuning_seed, START)])
                self.together(pool, [(o.tuning_seed, arm, rate) for arm in o.arms for rate in o.learning_rates])
                self.rates = {arm: self.best_rate(arm) for arm in o.arms}
                print("best learning rates: " + ", ".join(f"{arm} {rate:g}" for arm, rate in self.rates.items()), flush=True)
            self.together(pool, [(seed, START) for seed in o.seeds])
            self.together(pool, [(seed, arm) for seed in o.seeds for arm in o.arms])
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def together(self, pool, runs):
        """Runs that do not need each other. Ends the program where one of them failed, after the others."""
        failures = []
        waiting = [pool.submit(self.run, *run) for run in runs]
        for one in waiting:
            try:
                one.result()
            except Interrupted:
                pass
            except (RuntimeError, OSError) as e:
                failures.append(str(e))
        if failures:
            fail("\nfigure5: ".join(failures))
        if self.stopping:
            print("figure5: interrupted; the same command goes on from here", file=sys.stderr)
            sys.exit(130)

    def best_rate(self, arm):
        """By held-out greedy accuracy; of equally good ones the smaller."""
        def accuracy(rate):
            folder = folder_of(self.options.out, self.options.tuning_seed, arm, rate)
            with open(os.path.join(folder, RESULTS), encoding="utf-8") as file:
                return json.load(file)["after"][ACCURACY]["mean"]
        return max(sorted(self.options.learning_rates), key=accuracy)


def last_line(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return "no output"
    return lines[-1] if lines else "no output"


def keep_settings(options):
    """One folder holds the runs of one set of settings; more seeds and arms may join."""
    settings = {"steps": options.steps, "sft_steps": options.sft_steps, "learning_rates": options.learning_rates,
                "tuning_seed": options.tuning_seed, "threads": options.threads, "common": options.common}
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


def with_gain(options, seed, arm):
    """A table of samples, accuracy, and accuracy less that of the seed's start: starts differ more than arms do."""
    folder = folder_of(options.out, seed, arm)
    lines, start = ["samples,accuracy,gain"], None
    with open(os.path.join(folder, METRICS), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row[HELD_OUT]:
                accuracy = float(row[HELD_OUT])
                start = accuracy if start is None else start
                lines.append(f"{row[SAMPLES]},{accuracy!r},{accuracy - start!r}")
    path = f"{folder}-curve.csv"
    write(path, "\n".join(lines) + "\n")
    return path


def learning_plot(options):
    runs = [f"--run={arm}={with_gain(options, seed, arm)}" for arm in options.arms for seed in options.seeds]
    return [sys.executable, CURVES, f"--out={os.path.join(options.out, 'figure5.svg')}", "--x=samples",
            "--x-label=sampled responses", "--band=t", "--title=Six ways to train further from the same SFT model",
            f"--panel=gain%=Held-out greedy accuracy less the start's (mean of {len(options.seeds)} seeds, 95 % interval)",
            *runs]


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


def rates_of(text):
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or len(set(rates)) != len(rates) or not all(0 < rate < 1 for rate in rates):
        raise argparse.ArgumentTypeError(f"expected different numbers between 0 and 1 joined by commas, got {text!r}")
    return rates


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
    parser.add_argument("--steps", type=positive, default=60, help="batches of sampled responses of each arm (60)")
    parser.add_argument("--sft-steps", type=positive, default=500, help="of the start (500)")
    parser.add_argument("--learning-rates", type=rates_of, default=[2e-4, 6e-4],
                        help="joined by commas, to take each arm's best of, or one for all (2e-4,6e-4)")
    parser.add_argument("--tuning-seed", type=int, default=1000, help="of the start that learning rates are tried from (1000)")
    parser.add_argument("--workers", type=positive, default=max(1, os.cpu_count() or 1),
                        help="runs at a time (as many as processors)")
    parser.add_argument("--threads", type=positive, default=1, help="of each run (1)")
    parser.add_argument("common", nargs="*", help="after --: options of the calculator for every run, SFT too")
    options = parser.parse_args()
    if options.tuning_seed < 0 or options.tuning_seed in options.seeds:
        fail(f"--tuning-seed: expected one from 0 that is not among --seeds, got {options.tuning_seed}", 2)
    if not os.access(options.calculator, os.X_OK) or os.path.isdir(options.calculator):
        fail(f"--calculator: {options.calculator} is no program", 2)
    return options


def main():
    options = arguments()
    keep_settings(options)
    runs = Runs(options)
    runs.all()
    student = load_curves().student
    outcome = Outcome(options)
    text = tables(outcome, student)
    if runs.tunes():
        text += "\nLearning rates: " + ", ".join(f"{arm} {rate:g}" for arm, rate in runs.rates.items()) + "\n"
    write(os.path.join(options.out, "figure5.txt"), text)
    write(os.path.join(options.out, "figure5.json"), json.dumps(
        {f"{arm}, seed {seed}": result for (seed, arm), result in outcome.results.items()}, indent=1) + "\n")
    print("\n" + text)
    draw(learning_plot(options))
    draw(sampling_plot(options, outcome))
    print(f"Pictures, tables and runs: {options.out}")


if __name__ == "__main__":
    main()
