"""Writes docs/commands.md: `palate --help` and the help of every command, as they are.

python docs/commands.py            write it
python docs/commands.py --check    exit 1 if it is not up to date
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

Made from the commands themselves by `make docs`; do not edit. Every command keeps to: progress on stderr, results on
stdout, `--json` for machines where there is a result, exit code 0 good, 1 failed, 2 bad input.
"""
# One layout wherever this runs: no colour, 100 columns. Typer and Rich read these when they are imported.
LAYOUT = {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
FORCING = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CLICOLOR_FORCE")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of a command and of all below it, in the order of `--help`."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        if not getattr(below, "hidden", False):
            yield from commands(below, (*path, name))


def page() -> str:
    """The whole page."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from palate.cli.main import app

    parts, runner = [HEAD], CliRunner()
    for path in commands(get_command(app)):
        result = runner.invoke(app, [*path, "--help"], prog_name="palate")
        if result.exit_code != 0:
            raise SystemExit(f"palate {' '.join(path)} --help failed: {result.exception or result.output}")
        title = " ".join(("palate", *path))
        lines = [line.rstrip() for line in result.output.strip("\n").splitlines()]
        text = "\n".join(lines).strip("\n")
        parts.append(f"{'#' * min(len(path) + 2, 4)} {title}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> int:
    os.environ.update(LAYOUT)
    for name in FORCING:
        os.environ.pop(name, None)
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
        print(f"wrote {PAGE.name}: {made.count(chr(10))} lines")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == made:
        return 0
    print(f"{PAGE} is not up to date: run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
