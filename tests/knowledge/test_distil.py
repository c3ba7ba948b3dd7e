import numpy as np
import polars as pl
import pytest

from palate.errors import InputError
from palate.knowledge.distil import Student, StudentConfig, distil


def taught(n=200, d=8, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, d)).astype(np.float32)
    targets = 1 / (1 + np.exp(-3 * vectors[:, :2].astype(np.float64)))
    return vectors, targets


def test_a_student_learns_probabilities():
    vectors, targets = taught()
    student = Student()
    honest = student.fit(vectors, targets)
    assert np.abs(student.predict(vectors) - targets).mean() < 0.1
    assert np.corrcoef(honest[:, 0], targets[:, 0])[0, 1] > 0.9


def test_out_of_fold_predictions_never_saw_the_row():
    """Labels of pure noise: a model that saw its rows would agree with them, an honest one cannot."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((60, 50)).astype(np.float32)
    targets = rng.integers(0, 2, (60, 1)).astype(float)
    student = Student(StudentConfig(strengths=(100.0,)))
    honest = student.fit(vectors, targets)
    assert np.corrcoef(student.predict(vectors)[:, 0], targets[:, 0])[0, 1] > 0.9
    assert abs(np.corrcoef(honest[:, 0], targets[:, 0])[0, 1]) < 0.4


def labels(values, model="teacher"):
    rows = [(str(i), name, value) for i, row in enumerate(values) for name, value in zip("ab", row, strict=True)]
    return pl.DataFrame(rows, schema=["entity", "name", "value"], orient="row").with_columns(model=pl.lit(model))


def test_every_item_gets_every_label():
    vectors, targets = taught(60)
    rows = distil(labels(targets[:40]), vectors, [str(i) for i in range(60)])
    assert rows.height == 120
    assert rows["value"].is_between(0, 1).all()
    assert rows["source"].unique().to_list() == ["student"]


def test_one_student_has_one_teacher():
    vectors, targets = taught(40)
    two = pl.concat([labels(targets, "x"), labels(targets, "y")])
    with pytest.raises(InputError, match="one teacher"):
        distil(two, vectors, [str(i) for i in range(40)])


def test_too_few_labels_are_refused():
    vectors, targets = taught(40)
    with pytest.raises(InputError, match="Too few") as caught:
        distil(labels(targets[:5]), vectors, [str(i) for i in range(40)])
    assert "annotate.items" in str(caught.value)
