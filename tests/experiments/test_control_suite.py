import json

import numpy as np
import pytest

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.evaluation.controls import weighted_auc
from palate.experiments.controls import OFF, Arm, ControlSuite, noise_like, permuted_rows, run_controls

N_ITEMS, N_USERS = 60, 40


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, FloatArray]:
    """Rows of users and items whose label follows the item's first hidden number."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((N_ITEMS, 4)).astype(np.float32)
    users, items = np.repeat(np.arange(N_USERS), 12), rng.integers(0, N_ITEMS, N_USERS * 12)
    labels = (hidden[items, 0] + 0.5 * rng.standard_normal(len(items)) > 0).astype(np.float64)
    return users, items, labels, hidden


def suite(knowledge: FloatArray, raw: FloatArray | None = None, **options: object) -> ControlSuite:
    users, items, labels, _ = world()
    half = np.arange(len(users)) % 2 == 0

    def judge(arm: Arm, seed: int) -> FloatArray:
        """Least squares on one half of the rows, scores for all."""
        columns = np.ones((len(items), 1)) if arm.item is None else np.c_[np.ones(len(items)), arm.item[items]]
        weights = np.linalg.lstsq(columns[half], labels[half], rcond=None)[0]
        return np.asarray(columns @ weights + 1e-9 * seed, dtype=np.float32)

    return run_controls(
        [Arm("knowledge", item=knowledge, tokens=120, seconds=3.0)],
        None if raw is None else Arm("raw", item=raw),
        judge,
        users,
        "AUC",
        statistic=weighted_auc(labels),
        seeds=3,
        **options,  # type: ignore[arg-type]
    )


def test_knowledge_that_helps_survives_every_control() -> None:
    users, _, _, hidden = world()
    found = suite(hidden[:, :1], hidden[:, 1:2], slices={"later users": users >= 20})
    assert found.survives == {"knowledge": True}
    assert set(found.judged.figures) == {OFF, "noise", "permuted", "raw", "knowledge"}
    assert found.judged.figures[OFF].mean == pytest.approx(0.5)
    assert found.judged.figures["knowledge"].mean > 0.8
    assert found.contrast("knowledge", "raw", "later users").difference.mean > 0.1
    row = found.rows()[-1]
    assert (row["knowledge"], row["tokens"], row["LLM seconds"]) == ("knowledge", 120, 3.0)
    json.dumps(found.as_dict())
    assert len(found.tables("Worth")) == 3
    assert len(found.chart("Worth").rows) == 5


def test_what_the_raw_text_says_as_well_does_not_survive() -> None:
    hidden = world()[3]
    found = suite(hidden[:, :1], hidden[:, :1])
    assert found.contrast("knowledge", OFF).better
    assert not found.contrast("knowledge", "raw").better
    assert found.survives == {"knowledge": False}


def test_noise_does_not_survive() -> None:
    noise = np.random.default_rng(9).standard_normal((N_ITEMS, 1)).astype(np.float32)
    assert suite(noise).survives == {"knowledge": False}


def test_controls_keep_shape_spread_and_what_is_unknown() -> None:
    matrix = np.random.default_rng(0).normal([5, -2], [0.1, 3], (500, 2)).astype(np.float32)
    matrix[::5] = 0
    for control in (noise_like, permuted_rows):
        made = control(matrix, 3)
        assert made.shape == matrix.shape
        assert not made[::5].any()
        known = matrix.any(axis=1)
        assert made[known].mean(axis=0) == pytest.approx(matrix[known].mean(axis=0), abs=0.5)
        assert made[known].std(axis=0) == pytest.approx(matrix[known].std(axis=0), rel=0.2)
        assert not np.array_equal(made, matrix)
        assert np.array_equal(made, control(matrix, 3))
    rows = {tuple(row) for row in matrix.tolist()}
    assert {tuple(row) for row in permuted_rows(matrix, 3).tolist()} == rows


def test_every_knowledge_has_a_permutation_of_its_own() -> None:
    users, _, labels, hidden = world()
    seen: list[str] = []

    def judge(arm: Arm, seed: int) -> FloatArray:
        seen.append(arm.name)
        return np.asarray(labels + seed, dtype=np.float32)

    found = run_controls(
        [Arm("small", item=hidden), Arm("large", user=hidden[:N_USERS])], None, judge, users, "AUC", seeds=1
    )
    assert seen == [OFF, "noise", "permuted small", "permuted large", "small", "large"]
    assert {(c.arm, c.against) for c in found.judged.contrasts if c.arm == "large"} == {
        ("large", OFF),
        ("large", "noise"),
        ("large", "permuted large"),
    }


def test_no_knowledge_is_no_suite() -> None:
    with pytest.raises(InputError, match="no knowledge"):
        run_controls([], None, lambda arm, seed: [0.0], ["u"], "AUC")
