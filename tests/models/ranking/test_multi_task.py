"""MMoE and STEM: parameters, a pass by hand, which labels move which embeddings, and that both learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ranking_data import rated_dataset

from palate.data.samples import rated_samples
from palate.evaluation.rating import auc
from palate.models.ranking.features import Features, FeaturesConfig

torch = pytest.importorskip("torch")
from palate.models.parts import configured  # noqa: E402
from palate.models.ranking.ranker import Ranker, RankerConfig  # noqa: E402
from palate.models.ranking.registry import BACKBONES, backbone  # noqa: E402

B, F, D, TASKS = 6, 4, 8, 2
PARAMS = {"inner": "deepfm", "inner_params": {"hidden": (6,), "dropout": 0.0}, "dropout": 0.0, "size": 5, "tower": (3,)}
EXPERT = (F * D + 1) * 5 + (F * D + 1) * 6 + 7 * 5
TOWER = (5 + 1) * 3 + 3 + 1


def made(name: str, **params: Any) -> tuple[Any, int]:
    torch.manual_seed(0)
    kind = backbone(name)
    config = configured(kind, {**PARAMS, "outputs": TASKS, **params})
    width = kind.widened(D, config) if hasattr(kind, "widened") else D
    return kind(F, width, config).double(), width


def inputs(width: int) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = (B, F, width), (B, 3, width), (B, width)
    fields, history, target = (torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes)
    return [fields, history, torch.ones(B, 3, dtype=torch.bool), target]


def test_parameters() -> None:
    count = {name: sum(p.numel() for p in made(name)[0].parameters()) for name in ("mmoe", "stem")}
    assert count["mmoe"] == 2 * EXPERT + TASKS * ((F * D + 1) * 2 + TOWER)
    assert count["stem"] == 3 * 2 * EXPERT + TASKS * ((F * D + 1) * 6 + TOWER)


def test_mmoe_by_hand() -> None:
    network, width = made("mmoe")
    given = inputs(width)
    found = network(*given)
    assert found.shape == (B, TASKS)
    outputs = [torch.relu(expert(*given)) for expert in network.experts]
    for k, task in enumerate(network.tasks):
        gate = torch.softmax(given[0].flatten(1) @ task.gate.layers[0].weight.T + task.gate.layers[0].bias, 1)
        mixed = sum(gate[:, e, None] * outputs[e] for e in range(2))
        first, _, _, last = task.tower.layers
        logit = torch.relu(mixed @ first.weight.T + first.bias) @ last.weight.T + last.bias
        assert torch.allclose(found[:, k], logit[:, 0])


def test_a_task_of_stem_reads_all_experts_and_moves_its_own_and_the_shared() -> None:
    network, width = made("stem")
    assert width == 3 * D
    for k in range(TASKS):
        given = inputs(width)
        network.zero_grad()
        network(*given)[:, k].sum().backward()
        moved = [float(part.abs().sum()) > 0 for part in given[0].grad.chunk(3, -1)]
        assert moved == [k == 0, k == 1, True]
        for part, experts in enumerate(network.experts):
            touched = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in experts.parameters()]
            assert all(touched) if part in (k, 2) else not any(touched)
        changed = [x.detach().clone() for x in given]
        changed[0].view(B, F, 3, D)[:, :, 1 - k] += 1.0  # embeddings of the other task
        assert not torch.allclose(network(*changed)[:, k], network(*given)[:, k])  # all forward


@pytest.mark.parametrize("name", ["mmoe", "stem"])
def test_gradients_reach_every_parameter(name: str) -> None:
    network, width = made(name)
    network(*inputs(width)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", ["mmoe", "stem"])
@pytest.mark.parametrize("inner", [name for name in BACKBONES if name not in ("mmoe", "stem")])
def test_every_backbone_can_be_an_expert(name: str, inner: str) -> None:
    network, width = made(name, inner=inner)
    assert network(*inputs(width)).shape == (B, TASKS)
    added = network.auxiliary()
    assert (inner == "dien") == (not isinstance(added, int) and float(added.detach()) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmoe", "stem", "deepfm"])
def test_learns_two_tasks(name: str) -> None:
    data = rated_dataset()
    samples = rated_samples(data, (2.0, 3.0))
    features = Features(data, samples, FeaturesConfig(history=4))
    quick = {"width": 8, "batch": 64, "epochs": 15, "patience": 15, "learning_rate": 0.02, "warmup": 5, "average": 0.9}
    config = RankerConfig(threads=1, calibration="platt", **quick)
    params = {} if name == "deepfm" else PARAMS
    ranker = Ranker(name, config, params=params).fit(features, samples.train, samples.validation)
    predicted = ranker.predict(samples.test)
    assert predicted.shape == (len(samples.test), 2)
    for k in range(2):
        assert auc(samples.test.labels[:, k], predicted[:, k]) > 0.7
