"""plot/curves.py: what it computes, what it draws, and what it refuses."""
import importlib.util
import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

SCRIPT = sys.argv[1]
specification = importlib.util.spec_from_file_location("curves", SCRIPT)
curves = importlib.util.module_from_spec(specification)
specification.loader.exec_module(curves)


def run(*options):
    return subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)


def refused(part, *options):
    result = run(*options)
    assert result.returncode != 0 and part in result.stderr and "Traceback" not in result.stderr, (part, result)


def close(a, b):
    assert len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-12) for p, q in zip(a, b) for x, y in zip(p, q)), (a, b)


def numbers():
    # Two seeds at 1 and 3: mean 2, deviation sqrt(2); the interval of the mean is t(1) = 12.706 times 1 wide.
    flat = [[(0, 1.0), (10, 1.0)], [(0, 3.0), (10, 3.0)]]
    close(curves.joined(flat, "sd"), [(0, 2, 2 - math.sqrt(2), 2 + math.sqrt(2)), (10, 2, 2 - math.sqrt(2), 2 + math.sqrt(2))])
    close(curves.joined(flat, "t"), [(0, 2, 2 - 12.706, 2 + 12.706), (10, 2, 2 - 12.706, 2 + 12.706)])
    # Different grids: values between points are on the line, and only the common range is shown.
    mixed = curves.joined([[(0, 0.0), (10, 10.0)], [(5, 5.0), (20, 20.0)]], "sd")
    close(mixed, [(5, 5, 5, 5), (10, 10, 10, 10)])
    close(curves.smoothed([(1, 1.0), (2, 3.0), (3, 8.0)], 2), [(1, 1), (2, 2), (3, 5.5)])
    assert abs(curves.student(60) - 2.0003) < 1e-3 and curves.student(4) == 2.776
    assert curves.spread([0, 1, 100], 10) == [-4.5, 5.5, 100]
    assert [curves.short(x) for x in (0, 500, 1500, 20000, 2500000)] == ["0", "500", "1.5k", "20k", "2.5M"]


def pictures(folder):
    tables = []
    for seed in range(3):
        path = os.path.join(folder, f"{seed}.csv")
        with open(path, "w", encoding="utf-8") as file:
            file.write("step,reward,accuracy,kl\n")
            for i in range(50):
                file.write(f"{i},{0.4 + 0.005 * i + 0.01 * seed},{'' if i % 10 else 0.5 + i / 200},\n")
        tables.append(path)
    out = os.path.join(folder, "a.svg")
    arguments = ["--out", out, "--title", "Title", "--smooth", "5", "--panel", "reward=Reward", "--panel", "accuracy%=Accuracy",
                 "--panel", "kl=KL", "--panel", "absent=Absent"]
    result = run(*arguments, "--reference", "0.5+-0.1=published", *(f"--run=grpo={t}" for t in tables),
                 f"--run=rft={tables[0]}")
    assert result.returncode == 0, result
    text = open(out, encoding="utf-8").read()
    xml.etree.ElementTree.fromstring(text)
    # Two panels have numbers. Text is drawn as outlines, so that it looks the same everywhere.
    assert len(set(re.findall(r'id="axes_(\d+)"', text))) == 2 and "<text" not in text and len(text) < 200000, len(text)
    again = os.path.join(folder, "b.svg")
    run(*arguments[:1], again, *arguments[2:], "--reference", "0.5+-0.1=published", *(f"--run=grpo={t}" for t in tables),
        f"--run=rft={tables[0]}")
    assert open(again, encoding="utf-8").read() == text
    # On a logarithmic axis 1, 4 and 16 are equally far apart.
    powers, logarithmic = os.path.join(folder, "k.csv"), os.path.join(folder, "k.svg")
    with open(powers, "w", encoding="utf-8") as file:
        file.write("k,share\n1,0.2\n4,0.4\n16,0.5\n")
    assert run("--out", logarithmic, "--x=k", "--log2-x", "--panel=share", f"--run=sft={powers}").returncode == 0
    line = re.search(r'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n" clip-path',
                     open(logarithmic, encoding="utf-8").read())
    first, second, third = map(float, line.groups())
    assert abs((second - first) - (third - second)) < 1e-3, line.groups()
    png = os.path.join(folder, "a.png")
    assert run("--out", png, "--panel", "reward", f"--run=grpo={tables[0]}").returncode == 0
    assert open(png, "rb").read(4) == b"\x89PNG"
    return tables[0], out, text


def refusals(folder, table, out, text):
    good = ["--panel", "reward", f"--run=grpo={table}"]
    bad = os.path.join(folder, "bad.csv")
    refused("no table has any", "--out", out, "--panel", "absent", f"--run=grpo={table}")
    refused("No such file", "--out", out, "--panel", "reward", "--run=grpo=" + os.path.join(folder, "none.csv"))
    refused("expected LABEL=TABLE", "--out", out, "--panel", "reward", "--run", "grpo")
    refused("expected COLUMN", "--out", out, "--panel", "=Reward", f"--run=grpo={table}")
    refused("step has a number that is not above 0", "--out", out, *good, "--log2-x")
    refused("expected VALUE", "--out", out, *good, "--reference", "high=published")
    refused("cannot be written", "--out", os.path.join(folder, "none", "a.svg"), *good)
    refused("cannot be written", "--out", os.path.join(folder, "a.nothing"), *good)
    for content, sentence in (("step,reward\n", "holds no rows"), ("step,reward\n1,2,3\n", ":2: has 3 cells for 2 columns"),
                              ("step,reward\n1,2\n2,x\n", ":3: reward is 'x', no number")):
        with open(bad, "w", encoding="utf-8") as file:
            file.write(content)
        refused(sentence, "--out", out, "--panel", "reward", f"--run=grpo={bad}")
    assert open(out, encoding="utf-8").read() == text
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


numbers()
with tempfile.TemporaryDirectory() as place:
    refusals(place, *pictures(place))
print("curves: numbers, pictures and refusals are as they should be")
