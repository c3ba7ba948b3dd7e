"""Students: what a teacher said about some items, carried to the whole catalogue by its vectors.

A student sees the text's vector and any further blocks (`palate.knowledge.blocks`). The silver-set idea of
LLM-as-annotators (Long et al. 2025, arXiv 2510.06657): a light model learns the teacher's probabilities, not its
verdicts, by soft cross-entropy -Σ p log s + (1 - p) log(1 - s).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.knowledge.blocks import Block, side_by_side
from palate.knowledge.candidates import candidate_sets, refined

Matrix = npt.NDArray[np.float64]


class StudentConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    strengths: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Inverse L2 penalties to choose from, by the teacher's labels on held-out folds."""
    folds: int = Field(default=5, ge=2)
    blocks: tuple[Block, ...] = ("categories", "company", "taste")
    """What the student sees beside the text's vector: the item's categories, who met it, how they valued it."""
    candidate_mass: float | None = Field(default=None, gt=0.5, le=1)
    """None: the teacher's probabilities are the targets. Else answers less sure than this leave yes and no open, and
    the student settles them (`palate.knowledge.candidates`)."""
    rounds: int = Field(default=3, ge=1)
    """Of re-estimating the targets of open answers."""
    seed: int = 0


class Student:
    """One linear model for each attribute on unit vectors."""

    def __init__(self, config: StudentConfig | None = None) -> None:
        self.config = config or StudentConfig()
        self.strength = 0.0
        self.weights: Matrix = np.zeros((0, 0))  # [n_attributes, d]
        self.bias: Matrix = np.zeros(0)

    def fit(self, vectors: FloatArray, targets: Matrix) -> Matrix:
        """Learn `targets` [n, n_attributes] in 0..1 (NaN: not asked) from `vectors` [n, d].

        Returns:
            Out-of-fold predictions [n, n_attributes]: for each row, of a model that never saw it.
        """
        folds = np.random.default_rng(self.config.seed).permutation(len(targets)) % self.config.folds
        trials = {c: self._out_of_fold(vectors, targets, folds, c) for c in self.config.strengths}
        self.strength = min(trials, key=lambda c: _cross_entropy(targets, trials[c]))
        self.weights, self.bias = _fit_all(vectors, targets, self.strength)
        return trials[self.strength]

    def predict(self, vectors: FloatArray) -> Matrix:
        """[n, n_attributes] in 0..1."""
        return np.asarray(1.0 / (1.0 + np.exp(-(vectors @ self.weights.T + self.bias))))

    def _out_of_fold(self, vectors: FloatArray, targets: Matrix, folds: npt.NDArray[np.int64], c: float) -> Matrix:
        result = np.full(targets.shape, np.nan)
        for fold in range(self.config.folds):
            inside = folds != fold
            part = Student(self.config)
            part.weights, part.bias = _fit_all(vectors[inside], targets[inside], c)
            result[~inside] = part.predict(vectors[~inside])
        return result


def distil(
    labels: pl.DataFrame,
    vectors: FloatArray,
    item_ids: Sequence[str],
    config: StudentConfig | None = None,
    blocks: Sequence[FloatArray] = (),
) -> pl.DataFrame:
    """A student of one teacher's label rows; returns label rows for every item and attribute.

    Args:
        labels: Knowledge rows of kind `label`, all of one `model`.
        vectors: [n_items, d] in the order of `item_ids`.
        blocks: Further features [n_items, any width], in the same order; every block weighs the same.

    An item that the teacher labelled gets its out-of-fold prediction, so that a student can be judged on it.

    Raises:
        InputError: if the labels come from several teachers, or from fewer items than there are folds.
    """
    config = config or StudentConfig()
    teachers = labels["model"].unique().to_list()
    if len(teachers) != 1:
        raise InputError("A student has one teacher.", got=", ".join(map(str, teachers)) or "no label")
    names = labels["name"].unique(maintain_order=True).to_list()
    numbers = {item_id: num for num, item_id in enumerate(item_ids)}
    rows = labels.filter(pl.col("entity").is_in(list(numbers)))
    targets = np.full((len(item_ids), len(names)), np.nan)
    places = [numbers[entity] for entity in rows["entity"]], [names.index(name) for name in rows["name"]]
    targets[places] = rows["value"].to_numpy()
    taught = np.flatnonzero(~np.isnan(targets).all(axis=1))
    if len(taught) < 2 * config.folds:
        raise InputError(
            "Too few labelled items to teach a student.",
            got=len(taught),
            allowed=f"at least {2 * config.folds}",
            hint="Raise the annotation budget (annotate.items in palate.yaml).",
        )
    features = side_by_side([vectors, *blocks]) if blocks else vectors
    student = Student(config)
    honest = student.fit(features[taught], _settled(features[taught], targets[taught], config))
    values = student.predict(features)
    values[taught] = np.where(np.isnan(honest), values[taught], honest)
    return _rows(values, item_ids, names, str(teachers[0]))


def _settled(features: FloatArray, targets: Matrix, config: StudentConfig) -> Matrix:
    if config.candidate_mass is None:
        return targets
    both = np.stack([targets, 1 - targets], axis=-1)
    sets = candidate_sets(both, config.candidate_mass)
    return refined(both, sets, lambda flat: Student(config).fit(features, flat), config.rounds)[..., 0]


def _rows(values: Matrix, item_ids: Sequence[str], names: Sequence[str], teacher: str) -> pl.DataFrame:
    flat = values.ravel().astype(np.float32)
    return pl.DataFrame(
        {
            "entity": np.repeat(np.asarray(item_ids, dtype=object), len(names)).tolist(),
            "name": list(names) * len(item_ids),
            "value": flat,
            "confidence": np.maximum(flat, 1 - flat),
        }
    ).with_columns(model=pl.lit(teacher), source=pl.lit("student"))


def _fit_all(vectors: FloatArray, targets: Matrix, c: float) -> tuple[Matrix, Matrix]:
    """All attributes at once: Σ asked (log(1 + e^z) - p z) + |weights|² / 2c, by L-BFGS. Attributes do not interact."""
    from scipy.optimize import minimize
    from scipy.special import expit

    asked = ~np.isnan(targets)
    p, x = np.where(asked, targets, 0.0), vectors.astype(np.float64)
    n_attributes, width = targets.shape[1], x.shape[1]

    def loss(flat: Matrix) -> tuple[float, Matrix]:
        weights, bias = flat[:-n_attributes].reshape(n_attributes, width), flat[-n_attributes:]
        z = x @ weights.T + bias
        error = np.where(asked, expit(z) - p, 0.0)
        value = np.where(asked, np.logaddexp(0, z) - p * z, 0.0).sum() + (weights**2).sum() / (2 * c)
        return float(value), np.concatenate([(error.T @ x + weights / c).ravel(), error.sum(axis=0)])

    start = np.zeros(n_attributes * (width + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found[:-n_attributes].reshape(n_attributes, width), found[-n_attributes:]


def _cross_entropy(targets: Matrix, predicted: Matrix) -> float:
    asked = ~np.isnan(targets)
    p, s = targets[asked], np.clip(predicted[asked], 1e-6, 1 - 1e-6)
    return float(-(p * np.log(s) + (1 - p) * np.log(1 - s)).mean())
