"""What a figure was measured on: goes into each result file."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("palate", "av", "aiohttp", "openai", "httpx", "numpy", "polars", "pyarrow", "torch", "xllamacpp")


def machine_facts() -> dict[str, object]:
    """Processor, cores this process may use, memory, load, versions, time."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "load_over_1_5_15_minutes": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _field(path: str, name: str) -> str | None:
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
