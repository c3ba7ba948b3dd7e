"""Numbers in words for pages, and JSON that cannot leave its block. The only place where markup is made by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import ChainableUndefined, ChoiceLoader, Environment, PackageLoader, Undefined
from markupsafe import Markup

ABSENT = "–"


def count(value: object) -> str:
    """12345.0 → `12,345`."""
    number = finite(value)
    return ABSENT if number is None else f"{number:,.0f}"


def some(value: object, name: str) -> str:
    """`1 event`, `2,000 events`."""
    return f"{count(value)} {name}" if finite(value) == 1 else f"{count(value)} {name}s"


def score(value: object, digits: int = 3) -> str:
    """0.12345 → `0.123`; small values keep a leading digit: 0.00042 → `0.00042`."""
    number = finite(value)
    if number is None:
        return ABSENT
    if number and abs(number) < 10**-digits:
        return f"{number:.2g}"
    return f"{number:.{digits}f}"


def seconds(value: object) -> str:
    """3.25 → `3.2 s`; 95 → `1 min 35 s`; 4000 → `1 h 07 min`."""
    number = finite(value)
    if number is None:
        return ABSENT
    if number < 60:
        return f"{number:.1f} s" if number >= 0.1 or number == 0 else f"{number * 1000:.0f} ms"
    minutes, rest = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def money(value: object) -> str:
    """0.0123 → `0.0123`; zero says that nothing was paid."""
    number = finite(value)
    if number is None:
        return ABSENT
    return "free" if number == 0 else f"{number:.4f}" if number < 1 else f"{number:,.2f}"


def interval(value: object, low: object, high: object, digits: int = 3) -> str:
    """`0.123 [0.110, 0.134]`, without brackets where there is no interval."""
    if finite(low) is None or finite(high) is None:
        return score(value, digits)
    return f"{score(value, digits)} [{score(low, digits)}, {score(high, digits)}]"


def moment(value: object) -> str:
    """A time as `2026-11-22 14:03`, UTC; numbers are seconds, or microseconds, since the epoch."""
    if isinstance(value, str):
        try:
            return moment(datetime.fromisoformat(value))
        except ValueError:
            return value
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    number = finite(value)
    if number is None:
        return ABSENT if value is None or isinstance(value, Undefined) else str(value)
    if abs(number) > 1e11:
        number /= 1e6
    try:
        return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):
        return str(value)


def finite(value: object) -> float | None:
    """`value` as a finite float, or None: booleans, text that is no number, NaN and infinity are not figures."""
    if isinstance(value, bool | Undefined) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def safe_json(value: object) -> Markup:
    """JSON for a `<script type="application/json">` block.

    `<`, `>`, `&` and everything outside ASCII are escaped, so that no text can end the block or start a comment;
    NaN and infinity become null, since browsers refuse them.
    """
    text = json.dumps(plain(value), ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # escaped above


def plain(value: Any) -> Any:
    """`value` as what JSON knows: finite numbers, text, lists and maps; times become ISO text, the rest `str`."""
    if value is None or isinstance(value, Undefined) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float | bool | int | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "some": some,
    "score": score,
    "seconds": seconds,
    "money": money,
    "moment": moment,
    "safe_json": safe_json,
}


def environment(*packages: str) -> Environment:
    """Jinja2 over the `templates` folders of packages: everything is escaped, what is missing is an empty text."""
    loaders = [PackageLoader(package) for package in (*packages, "palate.console")]
    made = Environment(
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=ChoiceLoader(loaders),
    )
    made.filters |= FILTERS
    return made
