"""Generated problems and the check of responses against Python's own parser and fractions."""
import ast
import json
import re
import subprocess
import sys
from fractions import Fraction

NUMBER = re.compile(r"(0|[1-9]\d*)(\.\d?[1-9])?\Z")
OPERATIONS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def tree(text):
    """The tree of an expression that is spelled as the task spells it, or None."""
    numbers = re.split(r"[-+*/()]", text)
    if any(part and not NUMBER.match(part) for part in numbers) or "**" in text or "//" in text:
        return None
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return node if shaped(node) and spelled(node) == text else None


def shaped(node):
    if isinstance(node, ast.BinOp):
        return type(node.op) in OPERATIONS and shaped(node.left) and shaped(node.right)
    return isinstance(node, ast.Constant)


def number(value):
    """A fraction of at most two decimals, as it is written."""
    text = f"{float(value):.2f}"
    assert Fraction(text) == value, value
    return text.rstrip("0").rstrip(".")


def level(node):
    return 2 if isinstance(node, ast.Constant) else 1 if type(node.op) in (ast.Mult, ast.Div) else 0


def spelled(node):
    if isinstance(node, ast.Constant):
        return number(Fraction(str(node.value)))
    left, right = spelled(node.left), spelled(node.right)
    left = f"({left})" if level(node.left) < level(node) else left
    right = f"({right})" if level(node.right) <= level(node) else right
    return left + OPERATIONS[type(node.op)] + right


def exact(node):
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    x, y = exact(node.left), exact(node.right)
    sign = OPERATIONS[type(node.op)]
    return x + y if sign == "+" else x - y if sign == "-" else x * y if sign == "*" else x / y


def operations(node):
    return sum(isinstance(n, ast.BinOp) for n in ast.walk(node))


def worked_out(text):
    """The chain of rewrites, by substitution in the text: innermost parentheses, then * and /, then leftmost."""
    steps = []
    while not NUMBER.match(text):
        inner = list(re.finditer(r"\(([^()]*)\)", text))
        depth = [text[: m.start()].count("(") - text[: m.start()].count(")") for m in inner]
        deepest = [m for m, d in zip(inner, depth) if d == max(depth)]
        best = None
        for m in deepest or [re.match(r"()(.*)\Z", text)]:
            body, at = (m.group(1), m.start(1)) if deepest else (text, 0)
            for rank, signs in ((1, "*/"), (0, "+-")):
                found = re.search(rf"([\d.]+)[{re.escape(signs)}]([\d.]+)", body)
                if found and (best is None or rank > best[0]):
                    best = (rank, at + found.start(), at + found.end())
        rank, start, end = best
        value = number(exact(ast.parse(text[start:end], mode="eval").body))
        if text[start - 1 : start] == "(" and text[end : end + 1] == ")":
            start, end = start - 1, end + 1
        text = text[:start] + value + text[end:]
        steps.append(text)
    return "=".join(steps)


def judged(prompt, text, ended):
    target = exact(tree(prompt))
    fewest = operations(tree(prompt))
    steps, falling, at = [], True, 0
    parts = text.split("=")
    if not ended and len(parts) > 1 and parts[-1] == "":
        parts.pop()
    answer, answer_text = False, ""
    for i, part in enumerate(parts):
        node = tree(part)
        at += len(part)
        end = at if at < len(text) or ended else max(at - 1, 0)
        count = operations(node) if node else fewest
        try:
            value = exact(node) if node else None
        except ZeroDivisionError:
            value = None
        steps.append([end, count < fewest and value == target])
        falling = falling and count < fewest
        if i == len(parts) - 1 and ended and node is not None and operations(node) == 0:
            answer, answer_text = value == target, part
        fewest = min(fewest, count)
        at += 1
    return {"answer": answer, "answer_text": answer_text, "steps": steps,
            "well_formed": ended and falling and answer_text != ""}


def main():
    lines = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True).stdout.splitlines()
    problems = responses = right = wrong = 0
    for line in map(json.loads, lines):
        prompt = line["prompt"].removesuffix("=")
        assert tree(prompt) is not None, line["prompt"]
        assert line["response"] == worked_out(prompt), (line, worked_out(prompt))
        problems += 1
        for response in line["responses"]:
            expected = judged(prompt, response["text"], response["ended"])
            got = {key: response[key] for key in expected}
            assert got == expected, (line["prompt"], response, expected)
            responses += 1
            right += expected["answer"]
            wrong += not expected["answer"]
    assert problems == 3000 and right > 1000 and wrong > 1000, (problems, right, wrong)
    print(f"{problems} problems, {responses} responses, {right} of them right: the same in Python")


main()
