#!/usr/bin/env python3
"""Learning curves from tables of metrics as one SVG (or PNG) picture.

Every --run is LABEL=TABLE. Runs of one label are seeds of one thing: their mean is drawn, in a band of one standard
deviation (or, with --band t, of the mean's 95 % interval). Every --panel is COLUMNS=TITLE with one column or several, joined by
commas; a % after the columns shows shares as percentages. Panels without any number are left out.
"""
import argparse
import csv
import math
import os
import sys

# 0.975 quantiles of Student's t by degrees of freedom; beyond them the normal distribution's, corrected to first order.
STUDENT = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
           2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]
# Colours that also differ for colour-blind readers (Paul Tol's bright and muted schemes).
COLOURS = ["#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#882255", "#999933", "#332288", "#44aa99"]
INK, PALE = "#333333", "#dddddd"


def fail(sentence):
    sys.exit(f"curves: {sentence}")


def student(degrees):
    return STUDENT[degrees - 1] if degrees <= len(STUDENT) else 1.95996 + 2.372 / degrees


def table(path):
    """Columns of numbers; an empty cell is NaN."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except OSError as e:
        fail(f"{path}: {e.strerror}")
    if len(rows) < 2:
        fail(f"{path}: holds no rows")
    columns = {name: [] for name in rows[0]}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            fail(f"{path}:{number}: has {len(row)} cells for {len(rows[0])} columns")
        for name, cell in zip(rows[0], row):
            try:
                columns[name].append(float(cell) if cell else math.nan)
            except ValueError:
                fail(f"{path}:{number}: {name} is {cell!r}, no number")
    return columns


def points(columns, x, y):
    if x not in columns or y not in columns:
        return []
    return [(a, b) for a, b in zip(columns[x], columns[y]) if math.isfinite(a) and math.isfinite(b)]


def smoothed(line, window):
    """Means over the `window` points up to each."""
    if window < 2:
        return line
    out = []
    for i, (x, _) in enumerate(line):
        part = [y for _, y in line[max(0, i - window + 1): i + 1]]
        out.append((x, sum(part) / len(part)))
    return out


def at(line, x):
    """The line's value at x, between its points; None outside."""
    if not line or x < line[0][0] or x > line[-1][0]:
        return None
    low, high = 0, len(line) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if line[middle][0] <= x else (low, middle)
    (x0, y0), (x1, y1) = line[low], line[high]
    return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def joined(lines, band):
    """x, mean, low, high where every line has a value."""
    if len(lines) == 1:
        return [(x, y, y, y) for x, y in lines[0]]
    out = []
    for x in sorted({x for line in lines for x, _ in line}):
        values = [at(line, x) for line in lines]
        if any(v is None for v in values):
            continue
        n = len(values)
        mean = sum(values) / n
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
        half = deviation if band == "sd" else student(n - 1) * deviation / math.sqrt(n)
        out.append((x, mean, mean - half, mean + half))
    return out


class Panel:
    def __init__(self, text):
        columns, _, self.title = text.partition("=")
        self.percent = columns.endswith("%")
        self.columns = [c.strip() for c in columns.rstrip("%").split(",")]
        self.title = self.title or self.columns[0]
        if not all(self.columns):
            fail(f"--panel: expected COLUMN[,COLUMN...][%]=TITLE, got {text!r}")

    def curves(self, runs, options):
        """(label, joined points, raw points of a single run or None) of each curve."""
        out = []
        for label, tables in runs.items():
            for column in self.columns:
                raw = [line for line in (points(t, options.x, column) for t in tables) if line]
                if not raw:
                    continue
                if self.percent:
                    raw = [[(x, 100 * y) for x, y in line] for line in raw]
                # A column that has few numbers, such as an evaluation every ten steps, is shown as it is.
                window = options.smooth if len(raw[0]) > len(tables[0][options.x]) // 2 else 1
                lines = [smoothed(line, window) for line in raw]
                name = label if len(self.columns) == 1 else column.replace("_", " ")
                if len(self.columns) > 1 and len(runs) > 1:
                    name = f"{label}, {name}"
                faint = raw[0] if len(raw) == 1 and window > 1 else None
                out.append((name, joined(lines, options.band), faint))
        return [c for c in out if c[1]]


def spread(heights, gap):
    """Heights moved apart to at least `gap`, each as little as possible, in their order."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks = []
    for i in order:
        blocks.append([heights[i], 1])
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2:
            centre, size = blocks.pop()
            other, count = blocks.pop()
            blocks.append([(centre * size + other * count) / (size + count), size + count])
    placed = [c + gap * (k - (n - 1) / 2) for c, n in blocks for k in range(n)]
    out = [0.0] * len(heights)
    for i, height in zip(order, placed):
        out[i] = height
    return out


def draw_panel(axes, panel, curves, options, colour_of, labelled):
    for name, line, faint in curves:
        xs, mean, low, high = zip(*line)
        colour = colour_of(name)
        if faint:
            axes.plot(*zip(*faint), color=colour, linewidth=0.6, alpha=0.3)
        if any(h > l for l, h in zip(low, high)):
            axes.fill_between(xs, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(xs, mean, color=colour, linewidth=1.7, solid_capstyle="round")
    axes.set_title(panel.title, loc="left", fontsize=12, color=INK, pad=8)
    axes.grid(True, color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=10, length=3)
    axes.margins(x=0.01)
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    if options.log2_x:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({x for _, line, _ in curves for x, _, _, _ in line}))
        axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    if panel is options.panels[0]:
        references(axes, options, panel)
    if labelled:
        direct_labels(axes, curves, colour_of)


def short(value):
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def references(axes, options, panel):
    for text in options.reference:
        value, _, label = text.partition("=")
        height, _, half = value.partition("+-")
        try:
            height, half = float(height), float(half or 0)
        except ValueError:
            fail(f"--reference: expected VALUE[+-HALF]=LABEL, got {text!r}")
        if panel.percent:
            height, half = 100 * height, 100 * half
        if half > 0:
            axes.axhspan(height - half, height + half, color="#777777", alpha=0.15, linewidth=0)
        axes.axhline(height, color="#555555", linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(label, (0.01, height), xycoords=("axes fraction", "data"), xytext=(0, 4),
                      textcoords="offset points", ha="left", va="bottom", fontsize=10, color="#555555")


def direct_labels(axes, curves, colour_of):
    """Each curve's name beside its end, moved apart where they would touch."""
    axes.figure.canvas.draw()
    to_pixel, to_data = axes.transData, axes.transData.inverted()
    right = max(line[-1][0] for _, line, _ in curves)
    heights = [to_pixel.transform((line[-1][0], line[-1][1]))[1] for _, line, _ in curves]
    gap = 13.5 * axes.figure.dpi / 72
    for (name, _, _), height in zip(curves, spread(heights, gap)):
        y = to_data.transform((0, height))[1]
        axes.annotate(name, (right, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=10,
                      color=colour_of(name), annotation_clip=False)


def figure(options, runs):
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "svg.fonttype": "path", "svg.hashsalt": "grpo",
                                "axes.edgecolor": "#999999", "text.color": INK, "axes.labelcolor": INK})
    import matplotlib.pyplot as plt
    drawn = [(panel, curves) for panel in options.panels if (curves := panel.curves(runs, options))]
    if not drawn:
        fail("no table has any of the panels' columns with a number in it")
    options.panels = [panel for panel, _ in drawn]
    if options.log2_x and any(x <= 0 for _, curves in drawn for _, line, _ in curves for x, _, _, _ in line):
        fail(f"--log2-x: {options.x} has a number that is not above 0")
    columns = min(options.columns, len(drawn))
    rows = -(-len(drawn) // columns)
    names = list(dict.fromkeys(name for _, curves in drawn for name, _, _ in curves))
    colours = {}
    for _, curves in drawn:
        taken = {colours[name] for name, _, _ in curves if name in colours}
        for name, _, _ in curves:
            if name not in colours:
                free = [c for c in COLOURS if c not in taken] or COLOURS
                colours[name] = free[0] if len(names) > len(COLOURS) else COLOURS[names.index(name)]
                taken.add(colours[name])
    width, height = (8.2, 4.9) if len(drawn) == 1 else (4.6 * columns, 2.9 * rows + 0.6)
    fig, grid = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.1, h_pad=0.1, hspace=0.03)
    for axes in grid.flat[len(drawn):]:
        axes.set_visible(False)
    if options.title:
        fig.suptitle(options.title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    for i, (axes, (panel, curves)) in enumerate(zip(grid.flat, drawn)):
        if i + columns >= len(drawn):
            axes.set_xlabel(options.x_label or options.x, fontsize=11)
        draw_panel(axes, panel, curves, options, colours.get, labelled=len(runs) > 1 or len(curves) > 1)
    return fig


def save(fig, path):
    """The picture beside its place, then renamed onto it."""
    kind = os.path.splitext(path)[1].lstrip(".").lower() or "svg"
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        fig.savefig(beside, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
        os.replace(beside, path)
    except (OSError, ValueError) as e:
        if os.path.exists(beside):
            os.remove(beside)
        fail(f"{path}: cannot be written ({e})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the picture; its ending says SVG or PNG")
    parser.add_argument("--run", action="append", required=True, metavar="LABEL=TABLE", help="a CSV of metrics")
    parser.add_argument("--panel", action="append", required=True, type=Panel, dest="panels", metavar="COLUMNS[%]=TITLE")
    parser.add_argument("--x", default="step", help="the column along the axis (step)")
    parser.add_argument("--x-label", help="what it is called")
    parser.add_argument("--log2-x", action="store_true", help="a logarithmic axis, marked where there are points")
    parser.add_argument("--title", help="above all panels")
    parser.add_argument("--reference", action="append", default=[], metavar="VALUE[+-HALF]=LABEL",
                        help="a horizontal line in the first panel")
    parser.add_argument("--smooth", type=int, default=1, help="draw means of so many points; a single run's own beneath")
    parser.add_argument("--band", choices=["sd", "t"], default="sd",
                        help="around means: one standard deviation, or the mean's 95 %% interval (Student's t)")
    parser.add_argument("--columns", type=int, default=3, help="panels in a row (3)")
    options = parser.parse_args()
    runs = {}
    for text in options.run:
        label, equals, path = text.partition("=")
        if not equals:
            fail(f"--run: expected LABEL=TABLE, got {text!r}")
        runs.setdefault(label, []).append(table(path))
    save(figure(options, runs), options.out)


if __name__ == "__main__":
    main()
