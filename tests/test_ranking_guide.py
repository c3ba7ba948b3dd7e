"""docs/ranking.md: the backbone of the guide is one file below 120 lines and one line of a registry, and it learns."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from palate.data.movielens import read_movielens
from palate.data.samples import rated_samples
from palate.evaluation.rating import auc, log_loss

pytest.importorskip("torch")
from palate.models import parts
from palate.models.ranking import registry
from palate.models.ranking.features import Features, FeaturesConfig
from palate.models.ranking.ranker import Ranker, RankerConfig

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "ranking.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file of the guide, as a module of another package would be."""
    source = blocks("python")[0]
    assert source.count("\n") < 120
    made = ModuleType("fwfm")
    monkeypatch.setitem(sys.modules, "fwfm", made)
    exec(compile(source, "fwfm.py", "exec"), made.__dict__)
    return made


@pytest.mark.slow
def test_the_backbone_of_the_guide_learns(module: ModuleType, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = read_movielens(sample)
    samples = rated_samples(films)
    samples = samples.take(np.arange(0, len(samples), 8))
    features = Features(films, samples, FeaturesConfig(history=10))
    config = RankerConfig(width=8, epochs=2, learning_rate=5e-3, threads=1)
    line = re.search(r'^"fwfm": "(\S+)",$', "\n".join(blocks("text")), re.M)
    assert line is not None
    assert line[1].split(":")[1] == "FwFM"
    monkeypatch.setitem(registry.BACKBONES, "fwfm", "fwfm:FwFM")
    ranker = Ranker("fwfm", config).fit(features, samples.train, samples.validation)
    truth, predicted = samples.test.labels[:, 0], ranker.predict(samples.test)
    constant = np.full(len(truth), samples.train.labels.mean())
    assert log_loss(truth, predicted) < log_loss(truth, constant) - 0.02
    assert auc(truth, predicted) > 0.65
    by_class = Ranker(module.FwFM, config).fit(features, samples.train, samples.validation)
    assert np.array_equal(by_class.predict(samples.test), predicted)


def test_other_packages_add_theirs_by_an_entry_point(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    group = re.search(r'^\[project\.entry-points\."(\S+)"\]\n(\w+) = "(\S+)"$', "\n".join(blocks("toml")), re.M)
    assert group is not None and group[1] == registry.GROUP
    point = EntryPoint(group[2], "fwfm:FwFM", group[1])
    monkeypatch.setattr(parts, "entry_points", lambda group: [point] if group == point.group else [])
    assert registry.backbone("fwfm") is module.FwFM
