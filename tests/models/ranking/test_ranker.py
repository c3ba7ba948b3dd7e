"""Rankers learn, stop, calibrate, go on after a kill, take knowledge, and survive bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranking_data import prepared

from palate.data.samples import clicked_samples
from palate.errors import InputError, PalateError
from palate.evaluation.rating import auc, expected_calibration_error
from palate.models.checkpoint import FileCheckpoint

torch = pytest.importorskip("torch")
from palate.models.adapters.registry import fitted  # noqa: E402
from palate.models.ranking.blocks import BackboneConfig  # noqa: E402
from palate.models.ranking.encoder import Batch, Encoder  # noqa: E402
from palate.models.ranking.features import Features, FeaturesConfig  # noqa: E402
from palate.models.ranking.ranker import Ranker, RankerConfig, SideVectors  # noqa: E402
from palate.models.ranking.registry import BACKBONES  # noqa: E402

QUICK = RankerConfig(width=8, batch=64, epochs=3, learning_rate=0.01, warmup=5, average=0.9, threads=1)
SMALL = {"hidden": (16,), "dropout": 0.0}


class KilledError(Exception):
    pass


class Linear(torch.nn.Module):  # type: ignore[misc]
    """The smallest backbone there is."""

    Config = BackboneConfig

    def __init__(self, n_fields: int, width: int, config: BackboneConfig) -> None:
        super().__init__()
        self.out = torch.nn.Linear(n_fields * width, 1)

    def forward(self, fields: Any, history: Any, mask: Any, target: Any) -> Any:
        return self.out(fields.flatten(1))[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("mmoe", "stem")])
def test_learns_the_taste_that_was_planted(name: str) -> None:
    _, samples, features = prepared()
    config = QUICK.model_copy(update={"epochs": 8, "patience": 8})
    ranker = Ranker(name, config, params=SMALL).fit(features, samples.train, samples.validation)
    predicted = ranker.predict(samples.test)
    assert predicted.dtype == np.float32 and predicted.shape == (len(samples.test),)
    assert predicted.min() >= 0 and predicted.max() <= 1
    assert auc(samples.test.labels[:, 0], predicted) > 0.8


def test_encoded_rows_by_hand() -> None:
    _, samples, features = prepared()
    ranker = Ranker(Linear, QUICK.model_copy(update={"epochs": 1})).fit(features, samples.train)
    encoder: Encoder = ranker._network.encoder  # type: ignore[union-attr]
    some = samples.take(np.array([3, 400, 870]))
    rows = features(some)
    arrays = (rows.items, rows.users, rows.numbers, rows.history, rows.levels, some.users, some.items)
    encoded = encoder(Batch(*map(torch.from_numpy, arrays)))
    table, levels = (t.weight.detach().numpy() for t in (encoder.table, encoder.levels))
    worth = encoder.worth.detach().numpy()  # type: ignore[union-attr]

    def item_fields(item: int) -> Any:
        slots, field_of = features.item_fields.slots[item], features.item_fields.field_of
        groups = [[s for s, f in zip(slots, field_of, strict=True) if f == k and s] for k in range(3)]
        return np.array([table[g].mean(0) if g else np.zeros(8) for g in groups])

    for k in range(3):
        own = item_fields(rows.items[k])
        past = [(item, level) for item, level in zip(rows.history[k], rows.levels[k], strict=True) if item >= 0]
        sums = np.array([item_fields(item).sum(0) for item, _ in past]).reshape(-1, 8)
        valued = np.array([worth[level] for _, level in past])
        group = table[features.user_fields.slots[rows.users[k]][0]]
        vectors, missing = encoder.numbers.detach().numpy(), encoder.missing.detach().numpy()
        numbers = np.zeros((2, 8))
        for q, (name, x) in enumerate(zip(features.number_names, rows.numbers[k], strict=True)):
            numbers[int(name.startswith("user_"))] += missing[q] if np.isnan(x) else x * vectors[q]
        n = max(len(past), 1)
        means = [sums.sum(0) / n, valued @ sums / n]
        assert encoded.fields[k].detach().numpy() == pytest.approx(np.array([*own, group, *numbers, *means]), abs=1e-5)
        assert encoded.target[k].detach().numpy() == pytest.approx(own.sum(0), abs=1e-6)
        behind = levels[[level for _, level in past]].reshape(-1, 8)
        assert encoded.history[k, : len(past)].detach().numpy() == pytest.approx(sums + behind, abs=1e-5)
        assert not encoded.history[k, len(past) :].any()
    assert encoder.n_fields == encoded.fields.shape[1]


def test_gradients_reach_every_parameter_of_encoder_and_backbone() -> None:
    _, samples, features = prepared()
    network = Ranker("din", QUICK.model_copy(update={"epochs": 1})).fit(features, samples.train)._network
    assert network is not None
    rows = features(samples.train)
    arrays = (rows.items, rows.users, rows.numbers, rows.history, rows.levels, rows.users, rows.items)
    network.zero_grad()
    network(Batch(*map(torch.from_numpy, arrays))).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_the_same_seed_gives_the_same_model_and_another_another() -> None:
    _, samples, features = prepared()
    a, b, c = (
        Ranker("din", QUICK.model_copy(update={"seed": seed, "epochs": 1}))
        .fit(features, samples.train)
        .predict(samples.test)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [4, 15])
def test_a_killed_training_goes_on_to_the_same_model(tmp_path: Path, killed_at: int) -> None:
    _, samples, features = prepared()

    def progress(name: str, done: int, most: int, figures: dict[str, float]) -> None:
        if done == killed_at:
            raise KilledError

    whole = Ranker("dien", QUICK).fit(features, samples.train, samples.validation)
    checkpoint = FileCheckpoint(tmp_path / "state")
    with pytest.raises(KilledError):
        Ranker("dien", QUICK, checkpoint=checkpoint, on_progress=progress).fit(
            features, samples.train, samples.validation
        )
    resumed = Ranker("dien", QUICK, checkpoint=checkpoint).fit(features, samples.train, samples.validation)
    assert resumed.curve == whole.curve
    assert np.array_equal(resumed.predict(samples.test), whole.predict(samples.test))


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_is_fitted_on_validation_and_keeps_the_order(method: str) -> None:
    _, samples, features = prepared()
    third = (np.arange(len(samples.train)) % 3 == 0)[:, None]
    wrong = replace(samples.train, labels=np.maximum(samples.train.labels, third).astype(np.float32))
    raw, mapped = (
        Ranker("deepfm", QUICK.model_copy(update={"calibration": c})).fit(features, wrong, samples.validation)
        for c in ("none", method)
    )
    held = samples.take(samples.part > 0)
    before, after = raw.predict(held), mapped.predict(held)
    y = held.labels[:, 0]
    assert expected_calibration_error(y, after) < expected_calibration_error(y, before) - 0.02
    if method == "platt":
        assert np.array_equal(np.argsort(before, kind="stable"), np.argsort(after.round(9), kind="stable")) or (
            auc(y, before) == pytest.approx(auc(y, after), abs=1e-3)
        )
    assert auc(y, after) == pytest.approx(auc(y, before), abs=0.03)


@pytest.mark.slow
def test_early_stop_keeps_the_best_epoch() -> None:
    _, samples, features = prepared()
    for stop_on in ("auc", "log_loss"):
        config = QUICK.model_copy(update={"epochs": 30, "stop_on": stop_on, "learning_rate": 0.05})
        ranker = Ranker("deepfm", config).fit(features, samples.train, samples.validation)
        assert len(ranker.curve) < 30
        assert int(np.argmax(ranker.curve)) == len(ranker.curve) - 1 - config.patience


class Pair(torch.nn.Module):  # type: ignore[misc]
    """Two more fields, one of each side, and a term of the loss."""

    def __init__(self, du: int, di: int, width: int) -> None:
        super().__init__()
        self.user, self.item = torch.nn.Linear(du, width), torch.nn.Linear(di, width)

    def forward(self, user: Any, item: Any) -> Any:
        self.last = torch.stack([self.user(user), self.item(item)], 1)
        return self.last

    def auxiliary(self) -> Any:
        return 0.01 * self.last.square().mean()


def knowing() -> tuple[Any, Any, SideVectors]:
    """Labels that depend on vectors alone, samples without a trace of them, and the vectors."""
    data, samples, _ = prepared()
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 4)).astype(np.float32) for n in (data.n_users, data.n_items))
    truth = (users[samples.users, 0] + items[samples.items, 0] > 0).astype(np.float32)
    planted = replace(samples, labels=truth[:, None])
    bare = data.with_events(data.events.with_columns(value=0.0))
    return planted, Features(bare, planted, FeaturesConfig(history=2, min_rows=10_000)), SideVectors(users, items)


KNOWING = QUICK.model_copy(update={"epochs": 6, "learning_rate": 0.02})


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BACKBONES))
def test_knowledge_is_more_fields_of_every_backbone(name: str) -> None:
    samples, features, vectors = knowing()
    params = {**SMALL, "inner": "dcn", "inner_params": SMALL} if name in ("mmoe", "stem") else SMALL
    counts = np.bincount(samples.train.items, minlength=len(vectors.items))
    adapter, users, items = fitted("hybrid-expert", vectors.users, vectors.items, counts, {"hidden": 16})
    ranker = Ranker(name, KNOWING, params=params, adapter=adapter, vectors=SideVectors(users, items))
    ranker.fit(features, samples.train)
    assert auc(samples.test.labels[:, 0], ranker.predict(samples.test)) > 0.9


def test_without_the_knowledge_nothing_is_known() -> None:
    samples, features, _ = knowing()
    ranker = Ranker("deepfm", KNOWING, params=SMALL).fit(features, samples.train)
    assert auc(samples.test.labels[:, 0], ranker.predict(samples.test)) < 0.8


@pytest.mark.parametrize(("hide", "learned"), [(0.3, True), (1.0, False)])
def test_knowledge_that_is_hidden_now_and_then_is_still_learned_from(hide: float, learned: bool) -> None:
    samples, features, vectors = knowing()
    config = KNOWING.model_copy(update={"hide": hide})
    ranker = Ranker("deepfm", config, params=SMALL, adapter=Pair, vectors=vectors).fit(features, samples.train)
    assert (auc(samples.test.labels[:, 0], ranker.predict(samples.test)) > 0.9) is learned


def test_a_row_of_minus_one_is_nothing_known() -> None:
    data, samples, features = prepared()

    class Unknown(SideVectors):
        def rows(self, samples: Any) -> Any:
            return np.full(len(samples), -1, np.int32), samples.items

    users, items = np.ones((data.n_users, 3), np.float32), np.ones((data.n_items, 3), np.float32)
    config = QUICK.model_copy(update={"epochs": 1})
    hidden = Ranker("deepfm", config, adapter=Pair, vectors=Unknown(users, items)).fit(features, samples.train)
    zeros = Ranker("deepfm", config, adapter=Pair, vectors=SideVectors(0 * users, items)).fit(features, samples.train)
    assert np.array_equal(hidden.predict(samples.test), zeros.predict(samples.test))


def test_bad_input() -> None:
    data, samples, features = prepared()
    with pytest.raises(InputError, match="no such ranking backbone") as caught:
        Ranker("deepfn")
    assert "deepfm" in str(caught.value)
    with pytest.raises(InputError, match="do not fit"):
        Ranker("deepfm", QUICK, params={"layers": 3}).fit(features, samples.train)
    with pytest.raises(InputError, match="heads of the attention"):
        Ranker("autoint", QUICK, params={"heads": 3}).fit(features, samples.train)
    with pytest.raises(InputError, match="no training rows"):
        Ranker("deepfm", QUICK).fit(features, samples.take(np.arange(0)))
    with pytest.raises(PalateError, match="not been fitted"):
        Ranker("deepfm", QUICK).predict(samples.test)
    with pytest.raises(InputError, match="NaN"):
        broken = SideVectors(np.full((data.n_users, 2), np.nan, np.float32), np.zeros((data.n_items, 2), np.float32))
        Ranker("deepfm", QUICK, adapter=Pair, vectors=broken).fit(features, samples.train)


@pytest.mark.parametrize("name", ["deepfm", "din", "dien"])
def test_few_rows_no_history_and_strange_items(name: str) -> None:
    """Fewer rows than a batch, all first events of their users, validation of one class, items never trained on."""
    data, samples, _ = prepared()
    firsts = samples.take((samples.ends == samples.starts) & (samples.part == 0))
    few = replace(firsts.take(np.arange(20)), labels=(np.arange(20) % 2)[:, None].astype(np.float32))
    features = Features(data, few)
    one_class = replace(samples.validation, labels=np.ones_like(samples.validation.labels))
    ranker = Ranker(name, QUICK).fit(features, few, one_class)
    assert len(ranker.curve) == len([figure for figure in ranker.curve if np.isfinite(figure)])
    assert np.isfinite(ranker.predict(samples.test)).all()
    assert ranker.predict(samples.take(np.arange(0))).shape == (0,)


def test_an_implicit_log_is_ranked_as_well() -> None:
    data, _, _ = prepared()
    samples = clicked_samples(data.with_events(data.events.filter(data.events["value"] >= 3)), seed=1)
    clicked = data.with_events(data.events.filter(data.events["value"] >= 3))
    features = Features(clicked, samples, FeaturesConfig(history=8))
    config = QUICK.model_copy(update={"epochs": 8, "patience": 8})
    ranker = Ranker("deepfm", config, params=SMALL).fit(features, samples.train, samples.validation)
    assert auc(samples.test.labels[:, 0], ranker.predict(samples.test)) > 0.65
