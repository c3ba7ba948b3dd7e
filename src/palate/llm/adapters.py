"""LoRA adapters in peft's format (Hu et al. 2021, arXiv 2106.09685): a new one, written, named by a hash, merged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from palate.errors import EngineError, InputError, StorageError


def with_adapter(network: Any, rank: int, alpha: int) -> Any:
    """`network` with new matrices of `rank` on every linear layer of a block, which alone are trained.

    Raises:
        EngineError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise EngineError("Fine-tuning needs peft.", hint="pip install 'palate[torch-lm]'") from error
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    return get_peft_model(network, lora)


def write_adapter(network: Any, target: Path) -> None:
    """The adapter of `network` as a folder that is there whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        network.save_pretrained(str(temporary), safe_serialization=True)
        for file in temporary.iterdir():
            if file.name not in ("adapter_config.json", "adapter_model.safetensors"):
                file.unlink()  # a model card of blanks
        _in_order(temporary / "adapter_config.json")
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError("The adapter cannot be written.", where=str(target), got=error) from error


def _in_order(config: Path) -> None:
    """peft writes sets in whatever order they have: the same adapter must have the same hash in every process."""
    facts = json.loads(config.read_text())
    facts["target_modules"] = sorted(facts["target_modules"])
    config.write_text(json.dumps(facts, indent=1, sort_keys=True))


def adapter_hash(folder: Path) -> str:
    """8 hex digits of an adapter's weights and settings.

    Raises:
        InputError: It is not there whole.
    """
    found = hashlib.sha256()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        try:
            found.update((folder / name).read_bytes())
        except OSError as error:
            raise InputError(
                "The adapter of the language model cannot be read.",
                where=str(folder / name),
                got=error,
                hint="Check llm.adapter, or train it again.",
            ) from error
    return found.hexdigest()[:8]


def merged(network: Any, adapter: Path) -> Any:
    """`network` with the weights of `adapter` added to its own.

    Raises:
        EngineError: peft is not installed, or the adapter is none or another model's.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise EngineError("An adapter needs peft.", hint="pip install 'palate[torch-lm]'") from error
    try:
        return PeftModel.from_pretrained(network, str(adapter)).merge_and_unload()
    except Exception as error:  # of another model, or no adapter: peft lets through whatever its readers meet
        raise EngineError("The adapter does not fit the language model.", where=str(adapter), got=error) from error
