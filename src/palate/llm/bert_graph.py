"""A BERT sentence encoder as an ONNX graph, built from safetensors: no torch, no hub, no exporter.

Devlin et al. 2019 (arXiv 1810.04805) for the layers; mean pooling and unit length as in Sentence-BERT
(Reimers & Gurevych 2019, arXiv 1908.10084).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class _Graph:
    """Nodes and weights under construction; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._constants: set[str] = set()

    def weight(self, name: str, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants.add(name)
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        output = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def shape(self, *sizes: int) -> str:
        return self.weight("shape_" + "_".join(map(str, sizes)), np.array(sizes, dtype=np.int64))

    def number(self, value: float) -> str:
        return self.weight(f"number_{value}", np.array(value, dtype=np.float32))


class _Bert:
    """Writes the layers of one checkpoint into a graph."""

    def __init__(self, tensors: dict[str, npt.NDArray[np.float32]], config: dict[str, Any]) -> None:
        self.graph = _Graph()
        self._tensors = tensors
        self._config = config

    def _linear(self, x: str, name: str) -> str:
        weight = self.graph.weight(f"{name}.weight.T", self._tensors[f"{name}.weight"].T)
        bias = self.graph.weight(f"{name}.bias", self._tensors[f"{name}.bias"])
        return self.graph.op("Add", self.graph.op("MatMul", x, weight), bias)

    def _norm(self, x: str, name: str) -> str:
        scale = self.graph.weight(f"{name}.weight", self._tensors[f"{name}.weight"])
        bias = self.graph.weight(f"{name}.bias", self._tensors[f"{name}.bias"])
        epsilon = float(self._config["layer_norm_eps"])
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def embed(self, ids: str) -> str:
        graph, tensors = self.graph, self._tensors
        words = graph.weight("words", tensors["embeddings.word_embeddings.weight"])
        positions = graph.weight("positions", tensors["embeddings.position_embeddings.weight"])
        kind = graph.weight("kind", tensors["embeddings.token_type_embeddings.weight"][0])
        length = graph.op("Gather", graph.op("Shape", ids), graph.shape(1))
        places = graph.op("Slice", positions, graph.shape(0), length, graph.shape(0))
        summed = graph.op("Add", graph.op("Add", graph.op("Gather", words, ids), places), kind)
        return self._norm(summed, "embeddings.LayerNorm")

    def layer(self, x: str, bias: str, prefix: str) -> str:
        graph, heads = self.graph, int(self._config["num_attention_heads"])
        width = int(self._config["hidden_size"]) // heads
        parts = {}
        for part in ("query", "key", "value"):
            flat = self._linear(x, f"{prefix}.attention.self.{part}")
            split = graph.op("Reshape", flat, graph.shape(0, 0, heads, width))
            order = [0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
            parts[part] = graph.op("Transpose", split, perm=order)
        logits = graph.op("MatMul", parts["query"], parts["key"])
        logits = graph.op("Add", graph.op("Mul", logits, graph.number(width**-0.5)), bias)
        mixed = graph.op("MatMul", graph.op("Softmax", logits, axis=-1), parts["value"])
        joined = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = graph.op("Reshape", joined, graph.shape(0, 0, heads * width))
        attended = graph.op("Add", self._linear(joined, f"{prefix}.attention.output.dense"), x)
        attended = self._norm(attended, f"{prefix}.attention.output.LayerNorm")
        inner = graph.op("Gelu", self._linear(attended, f"{prefix}.intermediate.dense"))
        outer = graph.op("Add", self._linear(inner, f"{prefix}.output.dense"), attended)
        return self._norm(outer, f"{prefix}.output.LayerNorm")

    def pool(self, x: str, mask: str) -> str:
        graph = self.graph
        wide = graph.op("Unsqueeze", mask, graph.shape(2))
        summed = graph.op("ReduceSum", graph.op("Mul", x, wide), graph.shape(1), keepdims=0)
        return graph.op("LpNormalization", summed, name="vectors", axis=-1, p=2)


def bert_graph(folder: Path) -> bytes:
    """The encoder in `folder` (config.json, model.safetensors) as a serialised ONNX model.

    Inputs: `ids` int64 [n, length] and `mask` float32 [n, length]. Output: `vectors` float32 [n, hidden].
    """
    from onnx import TensorProto, helper
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    bert = _Bert(load_file(folder / "model.safetensors"), config)
    graph = bert.graph
    blocked = graph.op("Sub", "mask", graph.number(1.0))  # 0 where a token is, -1 where padding is
    blocked = graph.op("Unsqueeze", graph.op("Mul", blocked, graph.number(1e9)), graph.shape(1, 2))
    x = bert.embed("ids")
    for number in range(int(config["num_hidden_layers"])):
        x = bert.layer(x, blocked, f"encoder.layer.{number}")
    bert.pool(x, "mask")
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", "length"]),
    ]
    output = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", int(config["hidden_size"])])
    made = helper.make_graph(graph.nodes, "sentence_encoder", inputs, [output], graph.weights)
    # Opset 20 is the first with Gelu; IR version 9 is what runtimes since 2023 read.
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())
