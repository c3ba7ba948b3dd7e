"""A causal language model and its tokenizer from a folder of transformers or a GGUF file, an adapter merged into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from palate.errors import EngineError
from palate.llm.adapters import merged

Dtype = Literal["float32", "bfloat16"]


def loaded(path: Path, dtype: Dtype, device: str | None, adapter: Path | None) -> tuple[Any, Any]:
    """Tokenizer and model, ready to answer.

    Raises:
        EngineError: transformers or peft is not installed, or cannot read what is there.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise EngineError("The torch engine needs transformers.", hint="pip install 'palate[torch-lm]'") from error
    gguf = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **gguf)
        network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **gguf)
    except Exception as error:  # transformers lets through whatever its readers meet
        raise EngineError("The language model could not be loaded.", where=str(path), got=error) from error
    if adapter is not None:
        network = merged(network, adapter)
    return tokenizer, network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
