"""Prints how large the code is beside the sizes we hold ourselves to; fails only where a maximum is exceeded.

python tests/sizes.py [FOLDER]
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import numpy as np

FILE_MAX, FUNCTION_MAX, BLOCK = 600, 80, 6
# (median, 90th percentile) we aim at; not enforced
AIMS = {"lines a file": (150, 300, FILE_MAX), "lines a function": (10, 35, FUNCTION_MAX)}


def functions(path: Path, text: str) -> list[tuple[int, str]]:
    """(lines, name) of every function in a file, decorators left out, docstring counted."""
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.lineno} {node.name}")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def repeated_share(texts: list[str]) -> float:
    """Share of non-blank lines that lie in a block of six lines found more than once."""
    files = [[line.strip() for line in text.splitlines() if line.strip()] for text in texts]
    blocks = Counter(tuple(lines[at : at + BLOCK]) for lines in files for at in range(len(lines) - BLOCK + 1))
    repeated = 0
    for lines in files:
        marked = {
            at + step
            for at in range(len(lines) - BLOCK + 1)
            if blocks[tuple(lines[at : at + BLOCK])] > 1
            for step in range(BLOCK)
        }
        repeated += len(marked)
    return repeated / max(1, sum(map(len, files)))


def report(name: str, sized: list[tuple[int, str]]) -> list[str]:
    """Print one line of figures; return what exceeds the maximum."""
    median_aim, high_aim, maximum = AIMS[name]
    lengths = [size for size, _ in sized] or [0]
    median, high = np.percentile(lengths, [50, 90])
    largest, where = max(sized, default=(0, "nothing"))
    print(
        f"{name:<17} n {len(sized):>5}   median {median:>5.0f} (aim {median_aim})   "
        f"p90 {high:>5.0f} (aim {high_aim})   max {largest:>4} (limit {maximum})  {where}"
    )
    return [f"{where}: {size} lines, at most {maximum}" for size, where in sized if size > maximum]


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "src"
    texts = {path.relative_to(root): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))}
    filled = {path: text for path, text in texts.items() if text.strip()}
    files = [(text.count("\n"), str(path)) for path, text in filled.items()]
    too_large = report("lines a file", files)
    too_large += report("lines a function", [one for path, text in filled.items() for one in functions(path, text)])
    print(f"repeated six-line blocks: {repeated_share(list(filled.values())):.1%} of lines (aim 8%)")
    print("\n".join(too_large), file=sys.stderr, end="\n" if too_large else "")
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main())
