"""rollout_report and quickstart against numbers computed here: the sample, worked solutions, and every kind of bad input."""
import collections
import fractions
import itertools
import json
import math
import os
import pathlib
import re
import statistics
import sys
import tempfile
import xml.etree.ElementTree

import common

REPORT, QUICKSTART, ROOT = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
SAMPLE = ROOT / "examples" / "data" / "sample_rollouts.jsonl"
problems = []
checked = 0


def expect(what, got, wanted, within=0.0):
    global checked
    checked += 1
    near = abs(got - wanted) <= within if within else got == wanted
    if not near:
        problems.append(f"{what}: got {got!r}, expected {wanted!r}")


def report(*arguments):
    return common.run([REPORT, *arguments], timeout=60)


# ---- what the report should say


def scored(prompt):
    return [r for r in prompt["responses"] if r["reward"] is not None]


def pass_at_k(prompt, k):
    n = len(scored(prompt))
    c = sum(r["reward"] >= 1 for r in scored(prompt))
    return fractions.Fraction(math.comb(n, k) - math.comb(n - c, k), math.comb(n, k))


def maj_at_k(prompt, k):
    """Over all subsets: the most frequent answer, a tie going to the one seen first, and whether it is right."""
    found = scored(prompt)
    right = {}
    for r in found:
        right.setdefault(r["answer"], r["reward"] >= 1)
    won = [right[collections.Counter(r["answer"] for r in s).most_common(1)[0][0]] for s in itertools.combinations(found, k)]
    return fractions.Fraction(sum(won), len(won))


def normalised(r, eps, alone=0.0):
    if len(r) < 2:
        return [alone * x / (1 + eps) for x in r]
    return [(x - statistics.fmean(r)) / (statistics.stdev(r) + eps) for x in r]


def grpo(prompts):
    return [normalised(r, 1e-6) for _, r in prompts]


def lite_ppo(prompts):
    std = statistics.stdev(x for _, r in prompts for x in r)
    return [[(x - statistics.fmean(r)) / (std + 1e-6) for x in r] for _, r in prompts]


def rloo(prompts):
    return [[x - (sum(r) - x) / (len(r) - 1) for x in r] if len(r) > 1 else [0.0] for _, r in prompts]


def opo(prompts):
    bases = [sum(n * x for n, x in zip(lengths, r)) / sum(lengths) for lengths, r in prompts]
    return [[x - base for x in r] for (_, r), base in zip(prompts, bases)]


def gpg(prompts):
    everything = [x for _, r in prompts for x in r]
    scale = len(everything) / max(1, sum(x != 0 for x in everything))
    return [[(x - statistics.fmean(r)) * scale for x in r] for _, r in prompts]


def pass_at_k_training(prompts):
    out = []
    for _, r in prompts:
        first, second = sorted(r, reverse=True)[:2]
        lead = (first - second) / (statistics.stdev(r) + 1e-6) if first != second else 0.0
        out.append([lead if x == first else 0.0 for x in r])
    return out


def whitened(prompts, centre):
    """Every token holds its response's number; then mean 0 and deviation 1 over all tokens (ddof 0)."""
    values = [[x - centre * statistics.fmean(r) for x in r] for _, r in prompts]
    tokens = [x for (lengths, _), v in zip(prompts, values) for n, x in zip(lengths, v) for _ in range(n)]
    mean, std = statistics.fmean(tokens), max(statistics.pstdev(tokens), 1e-4)
    return [[(x - mean) / std for x in v] for v in values]


def others(prompts):
    """Mean and deviation of the others; undivided where that deviation is 0."""
    out = []
    for _, r in prompts:
        rest = [r[:i] + r[i + 1:] for i in range(len(r))]
        std = [statistics.stdev(o) if len(o) > 1 else 0.0 for o in rest]
        out.append([(x - statistics.fmean(o)) / (s + 1e-6 if s > 0 else 1.0) for x, o, s in zip(r, rest, std)])
    return out


# By recipe: from (lengths, rewards) of the scored responses of each prompt to their advantages.
RECIPES = {
    "grpo": grpo, "dapo": grpo, "gspo": grpo, "lite_ppo": lite_ppo, "rloo": rloo, "opo": opo, "gpg": gpg,
    "dr_grpo": lambda prompts: [[x - statistics.fmean(r) for x in r] for _, r in prompts],
    "pass_at_k": pass_at_k_training, "reinforce": lambda prompts: [r for _, r in prompts],
    "reinforce_plus_plus": lambda prompts: whitened(prompts, 0),
    "reinforce_plus_plus_baseline": lambda prompts: whitened(prompts, 1),
    "trl": lambda prompts: [normalised(r, 1e-4) for _, r in prompts], "nemo_rl": others,
    "verl": lambda prompts: [normalised(r, 1e-6, 1.0) for _, r in prompts],
    "areal": lambda prompts: [normalised(r, 1e-5) for _, r in prompts],
}


def process(prompt):
    """(normalised step rewards, one advantage per token) of a prompt."""
    steps = [s["reward"] for r in prompt["responses"] for s in r["steps"]]
    mean, std = statistics.fmean(steps), statistics.stdev(steps)
    normal = [(s - mean) / (std + 1e-6) if std > 0 else 0.0 for s in steps]
    rest = iter(normal)
    tokens = []
    for r in prompt["responses"]:
        own = [(s["end"], next(rest)) for s in r["steps"]]
        tokens += [math.fsum(x for end, x in own if end >= t) for t in range(r["tokens"])]
    return normal, tokens


# ---- reading the report


def number_after(text, words):
    found = re.search(rf"^ +{re.escape(words)} +(\d+)", text, re.M)
    return int(found.group(1)) if found else None


def summary_of(text, words):
    found = re.search(rf"^ +{re.escape(words)} +(\d+) +(\S+) +(\S+) +(\S+) +(\S+) +(\d+)$", text, re.M)
    return [float(x) for x in found.groups()] if found else [math.nan] * 6


def expect_summary(what, got, values):
    expect(f"{what}: count", got[0], len(values))
    wanted = (statistics.fmean(values), statistics.pstdev(values), min(values), max(values))
    for name, g, w in zip(("mean", "std", "least", "greatest"), got[1:5], wanted):
        expect(f"{what}: {name}", g, w, 0.000051)


# ---- the sample


def check_counts(prompts, text):
    responses = [r for p in prompts for r in p["responses"]]
    expect("prompts", number_after(text, "prompts"), len(prompts))
    expect("responses", number_after(text, "responses"), len(responses))
    expect("without a reward", number_after(text, "without a reward"), sum(r["reward"] is None for r in responses))
    expect("tokens", number_after(text, "tokens"), sum(r["tokens"] for r in responses))
    expect("steps", number_after(text, "steps"), sum(len(r["steps"]) for r in responses))
    sizes = collections.Counter(len(p["responses"]) for p in prompts)
    table = text.split("Group sizes")[1].split("Degenerate")[0]
    expect("sizes", {int(a): int(b) for a, b in re.findall(r"^ +(\d+) +(\d+)$", table, re.M)}, dict(sizes))
    equal = [p for p in prompts if len({r["reward"] for r in scored(p)}) < 2]
    found = re.search(r"Degenerate groups: (\d+) of (\d+)", text).groups()
    expect("degenerate", found, (str(len(equal)), str(len(prompts))))
    expect("all correct", number_after(text, "all correct"), sum(all(r["reward"] >= 1 for r in scored(p)) for p in prompts))
    expect("none correct", number_after(text, "none correct"), sum(all(r["reward"] < 1 for r in scored(p)) for p in prompts))


def check_evaluation(prompts, text):
    rows = re.findall(r"^ +(\d+) +(\d\.\d{4}) +(\d\.\d{4}) +(\d+)$", text, re.M)
    expect("rows of pass@k", [int(r[0]) for r in rows], [1, 2, 4, 8])
    for k, passed, maj, groups in rows:
        k = int(k)
        fit = [p for p in prompts if len(scored(p)) >= k]
        expect(f"groups at k={k}", int(groups), len(fit))
        expect(f"pass@{k}", float(passed), float(sum(pass_at_k(p, k) for p in fit) / len(fit)), 0.000051)
        expect(f"maj@{k}", float(maj), float(sum(maj_at_k(p, k) for p in fit) / len(fit)), 0.000051)


def check_advantages(prompts, folder):
    pairs = [([r["tokens"] for r in scored(p)], [r["reward"] for r in scored(p)]) for p in prompts]
    for name, recipe in RECIPES.items():
        ran = report(SAMPLE, "--recipe", name, "--groups", len(prompts))
        expect(f"{name}: status", ran.returncode, 0)
        wanted = recipe(pairs)
        expect_summary(name, summary_of(ran.stdout, "per response"), [a for g in wanted for a in g])
        for p, g in zip(prompts, wanted):
            row = re.search(rf"^ +{p['prompt_id']} +(.*)$", ran.stdout, re.M).group(1)
            got = [float(a) for reward, a in re.findall(r"(\S+):(\S+)", row) if reward != "-"]
            expect(f"{name}: advantages of {p['prompt_id']}", max(map(lambda a, b: abs(a - b), got, g)), 0.0, 0.000051)


def check_picture(prompts, folder):
    picture = folder / "picture.svg"
    ran = report(SAMPLE, "--svg", picture)
    expect("svg: status", ran.returncode, 0)
    root = xml.etree.ElementTree.parse(picture).getroot()
    bars = [int(t.text.split(": ")[1]) for t in root.iter("{http://www.w3.org/2000/svg}title")]
    tokens = sum(r["tokens"] for p in prompts for r in p["responses"])
    expect("svg: all that was counted", sum(bars), sum(len(scored(p)) for p in prompts) + tokens)
    words = " ".join(t.text for t in root.iter("{http://www.w3.org/2000/svg}text"))
    for wanted in ("Outcome supervision", "Process supervision", "advantage", "responses", "tokens"):
        expect(f"svg: says {wanted}", wanted in words, True)
    expect("svg: nothing left beside it", sorted(os.listdir(folder)), ["picture.svg"])


def check_sample(folder):
    prompts = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    ran = report(SAMPLE)
    expect("sample: status", ran.returncode, 0)
    expect("sample: nothing on stderr", ran.stderr, "")
    check_counts(prompts, ran.stdout)
    check_evaluation(prompts, ran.stdout)
    pairs = [process(p) for p in prompts]
    expect_summary("steps", summary_of(ran.stdout, "normalised"), [x for normal, _ in pairs for x in normal])
    expect_summary("process", summary_of(ran.stdout, "per token"), [x for _, tokens in pairs for x in tokens])
    check_advantages(prompts, folder)
    check_picture(prompts, folder)
    made = common.run([sys.executable, ROOT / "scripts" / "make_sample", "--check"])
    expect("the sample is what its script writes", made.returncode, 0)


# ---- worked solutions

RIGHT = ["1+1=2", "2/3=0.6666666666666666", "2/3=0.67", "0.1+0.2=0.30000000000000004", "1,000*3=3000", "-(2-5)*2=6",
         "50%*8=4", "4+4=8=2*4", "7/2=3.5", "10/4=2.50", ".5*4.=2"]
WRONG = ["1+1=3", "2/3=0.66", "7/2=3", "7/2=4", "4+4=8=9", "25*3=7500", "1-2=1"]
UNREADABLE = ["x+1=2", "5", "1/0=0", "2(3)=6", "3:15-2=1", "=3", "1+=1", "((1)=1", "", "(" * 5000 + "=1", "9" * 60 + "*1=1"]


def solution(lines, correct):
    return {"solution": "\n".join(lines), "is_correct": correct}


def check_annotations(folder):
    file = folder / "worked.jsonl"
    for verdict, texts in (("right", RIGHT), ("wrong", WRONG), ("unreadable", UNREADABLE + ["1+1=2>> <<1"])):
        for text in texts:
            model = solution([f"so <<{text}>> it is" if ">>" not in text else "so <<1+1=2 it is", "A: 1"], True)
            file.write_text(json.dumps({"question": "?", "ground_truth": "A: 1", "model": model}) + "\n")
            ran = report(file)
            for other in ("right", "wrong", "unreadable"):
                expect(f"{text[:40]} is {verdict}: {other}", number_after(ran.stdout, other), int(other == verdict))
    file.unlink()


def check_worked(folder):
    """Step rewards by hand: right line +1, wrong line -1, nothing to check 0, answer line by its label."""
    file = folder / "worked.jsonl"
    good = solution(["two and two <<2+2=4>>4", "", "so four", "A: 4.0"], True)
    bad = solution(["two and two <<2+2=5>>5 or <<1+1=2>>2", "#### 5"], False)
    none = solution(["no idea"], False)
    twin = solution(["guess", "A: $4"], True)
    line = {"question": "2+2?", "ground_truth": "A: 4", "a": good, "b": bad, "c": none, "d": twin}
    file.write_text(json.dumps(line) + "\n\n")
    ran = report(file, "-k", "1,3")
    expect("worked: status", ran.returncode, 0)
    expect_summary("worked: steps", summary_of(ran.stdout, "step rewards"), [1, 0, 1, -1, -1, 0, 0, 1])
    expect("worked: tokens", number_after(ran.stdout, "tokens"), 4 + 2 + 2 + 6 + 2 + 2 + 1 + 2)
    expect("worked: answers", number_after(ran.stdout, "with an answer"), 3)
    rows = re.findall(r"^ +(\d+) +(\d\.\d{4}) +(\d\.\d{4}) +(\d+)$", ran.stdout, re.M)
    # Of the four triples, a and d agree in two; in abc and bcd all three differ, and the first seen is right only in abc.
    expect("worked: k, pass@k, maj@k, groups", rows, [("1", "0.5000", "0.5000", "1"), ("3", "1.0000", "0.7500", "1")])
    file.unlink()


# ---- degenerate and bad input

GOOD = '{"prompt_id": 1, "responses": [{"reward": 1.0, "answer": "7"}, {"reward": 0.0, "answer": 8}]}'


def one(**response):
    return json.dumps({"prompt_id": "x", "responses": [{"reward": 1.0}, response]})


BAD_LINES = [
    ("{", "not JSON at column"), ("[1]", "expected one JSON object, got array"), ("3", "got number"),
    (GOOD + "}", "not JSON"),
    ('{"prompt_id": 1, "responses": [{"reward": NaN}]}', "a reward that could not be scored is null"),
    ('{"prompt_id": 1, "responses": [{"reward": 1e999}]}', "too large"),
    ('{"responses": []}', '"prompt_id", a string or an integer, but there is none'),
    ('{"prompt_id": 1.5, "responses": []}', "got 1.5"), ('{"prompt_id": 1}', '"responses", a list, but there is none'),
    ('{"prompt_id": 1, "responses": {}}', "got object"),
    ('{"prompt_id": 1, "responses": [4]}', "responses[0] to be an object"),
    (one(), "responses[1].reward, a number, or null"), (one(reward="high"), 'got "high"'), (one(reward=True), "got true"),
    (one(reward=1, text=5), "responses[1].text to be a string"), (one(reward=1, answer=[]), "responses[1].answer"),
    (one(reward=1, tokens=-1), "responses[1].tokens"), (one(reward=1, tokens=2.5), "got 2.5"),
    (one(reward=1, tokens=2**63), "tokens"),
    (one(reward=1, steps=3), "steps to be a list"), (one(reward=1, steps=[3]), "responses[1].steps[0] to be an object"),
    (one(reward=1, tokens=4, steps=[{"reward": 1}]), "steps[0].end, an integer, but there is none"),
    (one(reward=1, tokens=4, steps=[{"end": 4, "reward": 1}]), "steps[0].end from 0 to 3 (tokens: 4), got 4"),
    (one(reward=1, tokens=4, steps=[{"end": 2, "reward": 1}, {"end": 1, "reward": 1}]), "steps[1].end from 2 to 3"),
    (one(reward=1, tokens=4, steps=[{"end": 2, "reward": None}]), "steps[0].reward, a number, got null"),
    ('{"question": "?", "m": {"solution": "A: 1", "is_correct": true}}', "the format of the lines before it"),
    ('{"prompt_id": "\xff", "responses": []}'.encode("latin-1"), "not JSON"),
]
BAD_WORKED = [
    ('{"question": 3}', '"question" to be a string'), ('{"question": "?", "ground_truth": "A: 1"}', "at least one model"),
    ('{"question": "?", "m": {"is_correct": true}}', '"m".solution, a string, but there is none'),
    ('{"question": "?", "m": {"solution": "A: 1", "is_correct": 1}}', '"m".is_correct, true or false, got 1'),
]


def refused(what, ran, *words, lines=1):
    expect(f"{what}: status", ran.returncode, 1)
    expect(f"{what}: nothing on stdout", ran.stdout, "")
    expect(f"{what}: lines on stderr", len(ran.stderr.splitlines()), lines)
    for word in words:
        if word not in ran.stderr:
            problems.append(f"{what}: expected '{word}' in: {ran.stderr.strip()}")


def check_bad_lines(folder):
    file, picture = folder / "bad.jsonl", folder / "old.svg"
    picture.write_text("old")
    cases = [(GOOD, line, word) for line, word in BAD_LINES]
    cases += [('{"question": "?", "m": {"solution": "A: 1", "is_correct": true}}', line, word) for line, word in BAD_WORKED]
    for good, line, word in cases:
        raw = line if isinstance(line, bytes) else line.encode()
        file.write_bytes(good.encode() + b"\n\n" + raw + b"\n" + good.encode() + b"\n")
        refused(str(line)[:80], report(file, "--svg", picture), f"{file}:3: ", "expected", word)
    expect("bad lines leave an old picture alone", picture.read_text(), "old")
    expect("bad lines leave nothing else", sorted(os.listdir(folder)), ["bad.jsonl", "old.svg"])
    file.unlink()
    picture.unlink()


def check_bad_files(folder):
    file = folder / "rollouts.jsonl"
    refused("missing file", report(folder / "none.jsonl"), "none.jsonl: cannot be opened")
    refused("folder", report(folder), "is a directory")
    for text in ("", "\n \n\t\r\n"):
        file.write_text(text)
        refused(f"file {text!r}", report(file), f"{file}: holds no rollouts")
    file.write_text(GOOD)
    refused("k > n", report(file, "-k", "3"), "k is 3", "has 2 scored responses")
    refused("unknown recipe", report(file, "--recipe", "grop"), "grpo::", '"grop"', *(f" {r}" for r in RECIPES), lines=2)
    listed = report("--recipes")
    expect("list of recipes: status", listed.returncode, 0)
    expect("list of recipes", set(RECIPES) - {line.split()[0] for line in listed.stdout.splitlines()}, set())
    lacking = {"ppo": "value", "remax": "greedy_reward", "otb": "logp_old", "gdpo": "rewards", "sft": "no advantage"}
    for name, lacks in lacking.items():
        refused(f"recipe {name}", report(file, "--recipe", name, "--svg", folder / "a.svg"), "grpo::recipe::", lacks)
    refused("picture in no folder", report(file, "--svg", folder / "none" / "a.svg"), "a.svg: cannot be written")
    (folder / "taken.svg").mkdir()
    refused("picture on a folder", report(file, "--svg", folder / "taken.svg"), "cannot be written")
    for arguments in ([], [file, "-k", "0"], [file, "-k", "a"], [file, "--no-such"], [file, "--bins", "1"],
                      [file, "--groups", "-1"]):
        expect(f"usage {arguments}: status", report(*arguments).returncode, 2)
    expect("help: status", report("--help").returncode, 0)
    expect("bad files leave nothing", sorted(os.listdir(folder)), ["rollouts.jsonl", "taken.svg"])


def check_degenerate(folder):
    """An empty group, a lone response, a group without a score, equal rewards: counted, advantage 0, no NaN."""
    file = folder / "rollouts.jsonl"
    rewards = [[], [1.0], [None, None], [0.1, 0.1, 0.1], [1.0, None, 0.0]]
    lines = [json.dumps({"prompt_id": i, "responses": [{"reward": r} for r in g]}) for i, g in enumerate(rewards)]
    file.write_text("\r\n".join(lines))
    ran = report(file, "--groups", "9")
    expect("degenerate: status", ran.returncode, 0)
    expect("degenerate: count", "Degenerate groups: 4 of 5" in ran.stdout, True)
    expect("degenerate: without any reward", number_after(ran.stdout, "without any reward"), 2)
    expect("degenerate: no NaN", re.search(r"nan|inf\b", ran.stdout, re.I), None)
    rows = re.findall(r"^ +(\d+) +(\d\.\d{4}) +(\S+) +(\d+)$", ran.stdout, re.M)
    expect("degenerate: rows", rows, [("1", "0.5000", "-", "3"), ("2", "0.5000", "-", "2")])
    half = "0.7071"
    expect("degenerate: last group", f"1:+{half}  -:+0.0000  0:-{half}" in ran.stdout, True)
    expect("degenerate: threshold", number_after(report(file, "--threshold", "0.1").stdout, "all correct"), 2)
    picture = folder / "flat.svg"
    file.write_text('{"prompt_id": 0, "responses": []}\n')
    ran = report(file, "--svg", picture)
    expect("one empty group: status", ran.returncode, 0)
    xml.etree.ElementTree.parse(picture)
    file.write_text(json.dumps({"prompt_id": 0, "responses": [{"reward": r} for r in (1e308, -1e308, 1e20, 0.5)]}))
    expect("huge rewards: status", report(file, "--recipe", "reinforce", "--svg", picture).returncode, 0)
    xml.etree.ElementTree.parse(picture)


# ---- quickstart


def check_quickstart():
    """Clip and k3 by hand; the gradient by central differences."""
    source = (ROOT / "examples" / "quickstart.cpp").read_text()
    arrays = {n: [float(x) for x in v.split(",")] for n, v in re.findall(r"(\w+)\{([-\d.,\s]+)\};", source)}
    cu, reward = [int(x) for x in arrays["cu_seqlens"]], arrays["reward"]
    advantage = [a for g in (reward[:3], reward[3:]) for a in normalised(g, 1e-6)]

    def token(i, x, a):
        ratio, d = math.exp(x - arrays["logp_old"][i]), arrays["logp_ref"][i] - x
        return max(-a * ratio, -a * min(max(ratio, 0.8), 1.28)) + 0.04 * (math.exp(d) - 1 - d)

    ran = common.run([QUICKSTART], timeout=60)
    expect("quickstart: status", ran.returncode, 0)
    loss, h, n = 0.0, 1e-5, cu[-1]
    for s, (begin, end) in enumerate(zip(cu, cu[1:])):
        row = re.search(rf"^ +{s} +(.*)$", ran.stdout, re.M)
        got = [float(x) for x in row.group(1).split()] if row else []
        tokens = [(i, arrays["logp"][i]) for i in range(begin, end)]
        slopes = [(token(i, x + h, advantage[s]) - token(i, x - h, advantage[s])) / (2 * h) / n for i, x in tokens]
        loss += sum(token(i, x, advantage[s]) for i, x in tokens) / n
        wanted = [reward[s], advantage[s], *slopes]
        expect(f"quickstart: row {s} of {len(wanted)} numbers", len(got), len(wanted))
        for g, w in zip(got, wanted):
            expect(f"quickstart: row {s}", g, w, 0.000051 if w == advantage[s] else 0.0000061)
    said = re.search(r"^loss (\S+) over 15 tokens, (\d+) of them clipped", ran.stdout, re.M)
    expect("quickstart: loss", float(said.group(1)), loss, 0.00000051)
    ratios = [math.exp(x - o) for x, o in zip(arrays["logp"], arrays["logp_old"])]
    signs = [a for a, begin, end in zip(advantage, cu, cu[1:]) for _ in range(begin, end)]
    stopped = sum((a > 0 and r > 1.28) or (a < 0 and r < 0.8) for a, r in zip(signs, ratios))
    expect("quickstart: clipped", int(said.group(2)), stopped)


def main():
    checks = (check_sample, check_annotations, check_worked, check_bad_lines, check_bad_files, check_degenerate)
    for check in checks:
        with tempfile.TemporaryDirectory() as folder:
            check(pathlib.Path(folder))
    check_quickstart()
    common.finish(problems, f"{checked} expectations of the examples")


main()
