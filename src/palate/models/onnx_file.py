"""A network as an ONNX file, so that it can be served without torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def write_onnx(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    output: str,
    axes: Mapping[str, Mapping[int, str]],
    facts: Mapping[str, str],
    path: Path,
) -> None:
    """Write `network` whole or not at all; inputs that it does not read are left out.

    Args:
        network: In evaluation mode.
        inputs: Examples of its arguments, by name and in order.
        output: Name of its one result.
        axes: Which axes of inputs and output may have any size, with a name for each.
        facts: Kept in the file beside it.
        path: Of the file.
    """
    import onnx

    partial = path.with_name(f".partial-{path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                tuple(inputs.values()),
                str(partial),
                input_names=list(inputs),
                output_names=[output],
                dynamic_axes=axes,
                dynamo=False,
            )
        model = onnx.load(str(partial))
        onnx.helper.set_model_props(model, dict(facts))
        read = {name for node in model.graph.node for name in node.input}
        for unread in [given for given in model.graph.input if given.name not in read]:
            model.graph.input.remove(unread)
        onnx.save(model, str(partial))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
