import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from palate.errors import InputError
from palate.evaluation import controls
from palate.evaluation.controls import judge_arms, weighted_auc, weighted_mean


def test_auc_of_repeated_rows_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = rng.integers(0, 8, 60) / 8  # ties
    weights = rng.integers(0, 4, (5, 60)).astype(np.float64)
    found = weighted_auc(labels)(scores, weights)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    assert found == pytest.approx(expected)


def test_users_paired_once_say_what_rows_say_for_each_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels, users = rng.integers(0, 2, 400), rng.integers(0, 30, 400)
    arms = {name: rng.integers(0, 40, (3, 400)) / 40 for name in ("a", "b")}  # many ties
    within = rng.random(400) < 0.8
    ask = {"pairs": [("a", "b")], "statistic": weighted_auc(labels), "within": within, "n_resamples": 50}
    once = judge_arms(arms, users, **ask)
    monkeypatch.setattr(controls, "_PAIRED", 0)
    each = judge_arms(arms, users, **ask)
    for fast, slow in (
        (once.figures["a"], each.figures["a"]),
        (once.contrasts[0].difference, each.contrasts[0].difference),
    ):
        assert (fast.mean, fast.low, fast.high) == pytest.approx((slow.mean, slow.low, slow.high), abs=1e-12)


def test_auc_of_one_class_is_unknown() -> None:
    assert np.isnan(weighted_auc([1, 1])(np.array([0.1, 0.2]), np.ones((1, 2)))).all()


def test_mean_leaves_out_what_is_unknown() -> None:
    found = weighted_mean(np.array([1.0, np.nan, 4.0]), np.array([[1.0, 5.0, 2.0], [0.0, 1.0, 0.0]]))
    assert found[0] == pytest.approx(3.0)
    assert np.isnan(found[1])


def test_a_shift_is_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(80), 5)
    base = rng.normal(size=(5, 400)) + rng.normal(size=80)[users]  # users differ much: pairing is what finds it
    arms = {"off": base, "helps": base + 0.1 + 0.05 * rng.normal(size=base.shape), "same": base[:, ::1] + 0.0}
    judged = judge_arms(arms, users, [("helps", "off"), ("same", "off")])
    helps, same = judged.contrasts
    assert helps.better
    assert helps.difference.mean == pytest.approx(0.1, abs=0.02)
    assert not same.better
    assert not same.worse
    assert same.p_value == 1.0
    assert judged.figures["off"].low < judged.figures["off"].mean < judged.figures["off"].high


def test_holm_makes_claims_dearer_and_what_stands_beside_is_not_corrected() -> None:
    rng = np.random.default_rng(2)
    users = np.arange(200)
    arms = {"off": np.zeros(200), **{f"a{i}": rng.normal(0.1, 0.6, 200) for i in range(6)}}
    pairs = [(f"a{i}", "off") for i in range(6)]
    together = judge_arms(arms, users, pairs)
    alone = judge_arms(arms, users, [], beside=pairs)
    assert all(a.p_value >= b.p_value for a, b in zip(together.contrasts, alone.contrasts, strict=True))
    assert sum(a.p_value for a in together.contrasts) > sum(b.p_value for b in alone.contrasts)


def test_no_difference_is_claimed_at_most_as_often_as_promised() -> None:
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(60), 3)
    claimed = 0
    for trial in range(60):
        arms = {"a": rng.normal(size=(5, 180)), "off": rng.normal(size=(5, 180))}
        claimed += judge_arms(arms, users, [("a", "off")], n_resamples=200, seed=trial).contrasts[0].better
    assert claimed <= 6  # 2.5% one-sided; six of sixty is beyond the 99.5th percentile


def test_users_are_drawn_whole() -> None:
    users = np.repeat([0, 1], 50)
    values = np.repeat([0.0, 1.0], 50)
    figure = judge_arms({"a": values}, users, []).figures["a"]
    assert (figure.low, figure.high) == (0.0, 1.0)  # rows alone would say 0.4 to 0.6


def test_one_user_gives_no_interval() -> None:
    figure = judge_arms({"a": np.array([1.0, 2.0])}, ["u", "u"], []).figures["a"]
    assert figure.mean == 1.5
    assert np.isnan(figure.low)


def test_a_slice_counts_its_rows_only() -> None:
    within = np.array([True, True, False, False])
    assert judge_arms({"a": np.array([1.0, 3.0, 9.0, 9.0])}, np.arange(4), [], within=within).figures["a"].mean == 2.0


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="differ in length"):
        judge_arms({"a": np.zeros(3)}, np.arange(4), [])
    with pytest.raises(InputError, match="not measured") as raised:
        judge_arms({"a": np.zeros(3)}, np.arange(3), [("a", "off")])
    assert "off" in str(raised.value)
