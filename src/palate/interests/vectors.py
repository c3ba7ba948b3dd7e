"""Item vectors from what there is: text, media, and what people chose together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError
from palate.knowledge.annotate import item_text
from palate.llm.encoders import Encoder

TEXT, MEDIA, COLLABORATIVE = "text", "media", "collaborative"
Places = npt.NDArray[np.int64]
EXACT_WIDTH = 4096  # up to here the leading directions come from the Gram matrix, beyond from a randomised SVD


class VectorsConfig(BaseModel):
    """What an item's vector is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[str, float] = Field(
        default={TEXT: 1.0, MEDIA: 0.0, COLLABORATIVE: 0.0},
        description="share of each part in the cosine of two items that have all; a part of weight 0 is used only "
        "where no other part knows anything",
    )
    width: int = Field(default=256, ge=1, description="dimensions kept")
    neighbours: int = Field(default=10, ge=1, description="nearest items compared before and after the reduction")
    sample: int = Field(default=500, ge=1, description="items whose neighbours are compared")
    seed: int = 0


@dataclass(frozen=True)
class ItemVectors:
    """Unit vectors [n_items, width] and how they came about. A row of zeros: no part knows the item."""

    vectors: FloatArray
    used: dict[str, float]  # part to weight
    left_out: dict[str, str]  # part to reason
    neighbours_kept: float  # share of the nearest neighbours that the reduction kept, on a sample; 1 without one
    unknown: int  # items that no part knows

    def as_dict(self) -> dict[str, object]:
        """The facts, without the vectors."""
        return {
            "parts": self.used,
            "left out": self.left_out,
            "width": self.vectors.shape[1],
            "neighbours kept": round(self.neighbours_kept, 4),
            "items without a vector": self.unknown,
        }


def item_vectors(parts: Mapping[str, FloatArray | None], config: VectorsConfig | None = None) -> ItemVectors:
    """Join the parts and reduce them to `config.width`.

    Each part's rows are brought to unit length and count by their weight, so that the cosine of two items that have
    all parts is the weighted mean of the parts' cosines. Without text the result rests on what else there is, and
    `left_out` says so.

    Args:
        parts: Name to float32 [n_items, any width]; rows of zeros for items that the part does not know, None (or
            nothing but zeros) for a part that is not there.

    Raises:
        InputError: for parts of different lengths, values that are not finite, a part without a weight, or no part
            that knows any item.
    """
    config = config or VectorsConfig()
    known = {name: part for name, part in parts.items() if part is not None and part.size and np.any(part)}
    _check(known, config)
    used = {name: config.weights[name] for name in known if config.weights[name] > 0}
    used = used or dict.fromkeys(known, 1.0)
    left_out = {name: "it has weight 0" for name in known if name not in used}
    left_out |= {name: "there is none for any item" for name in parts if name not in known}
    joined = np.hstack([np.float32(used[name] ** 0.5) * unit_rows(known[name]) for name in used])
    joined = unit_rows(joined)
    vectors = unit_rows(_reduced(joined, config)) if joined.shape[1] > config.width else joined
    kept = 1.0 if vectors is joined else neighbours_kept(joined, vectors, config)
    return ItemVectors(vectors, used, left_out, kept, int((~vectors.any(axis=1)).sum()))


def text_part(dataset: Dataset, encoder: Encoder) -> FloatArray | None:
    """Vectors of the items' title, categories and text, [n_items, width], zeros where all are empty; None without any
    text at all."""
    texts = [item_text(dataset, num) for num in range(dataset.n_items)]
    told = [num for num, text in enumerate(texts) if text.strip()]
    if not told:
        return None
    vectors = np.zeros((len(texts), encoder.width), dtype=np.float32)
    vectors[told] = encoder.encode([texts[num] for num in told])
    return vectors


def collaborative(train: Dataset, width: int = 128, seed: int = 0) -> FloatArray | None:
    """Unit vectors [n_items, width] by who chose what, zeros for items without an event; None without any event.

    Right singular vectors, times singular values, of the user-item matrix whose entries are divided by the roots of
    both degrees, so that neither busy people nor popular items lead (as in GF-CF, Shen et al. 2021, arXiv 2108.07567).
    The direction of popularity, to which all items lean, is taken out.

    Args:
        train: The training log alone, or what is held out leaks into the tree.
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    pairs = train.events.select("user_num", "item_num").unique(maintain_order=True)
    if not pairs.height:
        return None
    users, items = pairs["user_num"].to_numpy(), pairs["item_num"].to_numpy()
    degree = np.bincount(items, minlength=train.n_items)
    entries = 1 / np.sqrt(np.bincount(users)[users] * degree[items])
    shape = (int(users.max()) + 1, train.n_items)
    matrix = csr_matrix((entries.astype(np.float32), (users, items)), shape)
    _, values, directions = randomized_svd(matrix, min(width, *shape), random_state=seed)
    found = (directions * values[:, None]).T
    if len(values) > 1:
        popular = np.sqrt(degree / degree.sum())
        found -= np.outer(popular, popular @ found)
    found[np.linalg.norm(found, axis=1) < 1e-6] = 0
    return unit_rows(found.astype(np.float32))


def unit_rows(rows: FloatArray) -> FloatArray:
    """Each row at unit length; rows of zeros stay."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    found = np.zeros(rows.shape, dtype=np.float32)
    np.divide(rows, lengths, out=found, where=lengths > 0, casting="unsafe")
    return found


def neighbours_kept(before: FloatArray, after: FloatArray, config: VectorsConfig) -> float:
    """Share of the nearest neighbours by `before` that are nearest by `after` too, over a sample of items."""
    known = np.flatnonzero(before.any(axis=1))
    k = min(config.neighbours, len(known) - 1)
    if k < 1:
        return 1.0
    asked = np.random.default_rng(config.seed).choice(known, min(config.sample, len(known)), replace=False)
    shares = []
    for start in range(0, len(asked), 50):
        rows = asked[start : start + 50]
        pairs = zip(_nearest(before, rows, known, k), _nearest(after, rows, known, k), strict=True)
        shares += [len(np.intersect1d(old, new)) / k for old, new in pairs]
    return float(np.mean(shares))


def _nearest(vectors: FloatArray, rows: Places, known: Places, k: int) -> Places:
    near = vectors[rows] @ vectors.T
    near[np.arange(len(rows)), rows] = -np.inf
    near[:, np.isin(np.arange(near.shape[1]), known, invert=True)] = -np.inf
    return np.asarray(np.argpartition(-near, k - 1, axis=1)[:, :k])


def _reduced(rows: FloatArray, config: VectorsConfig) -> FloatArray:
    """Onto the leading directions, not centred: a cosine is an angle at the origin."""
    if rows.shape[1] <= EXACT_WIDTH:
        _, directions = np.linalg.eigh((rows.T @ rows).astype(np.float64))
        return np.asarray(rows @ directions[:, ::-1][:, : config.width].astype(np.float32))
    from sklearn.decomposition import TruncatedSVD

    return np.asarray(TruncatedSVD(config.width, random_state=config.seed).fit_transform(rows), dtype=np.float32)


def _check(known: Mapping[str, FloatArray], config: VectorsConfig) -> None:
    unweighted = [name for name in known if name not in config.weights]
    if unweighted:
        raise InputError(
            "A part of the item vectors has no weight", where="weights", got=unweighted, allowed=list(config.weights)
        )
    if not known:
        raise InputError(
            "No item has a vector",
            where="item vectors",
            got="neither text, media nor events",
            hint="Give the items a title or text, or give events.",
        )
    if len({len(part) for part in known.values()}) > 1:
        lengths = {name: len(part) for name, part in known.items()}
        raise InputError("The parts of the item vectors are not of the same items", where="item vectors", got=lengths)
    broken = [name for name, part in known.items() if not np.isfinite(part).all()]
    if broken:
        raise InputError("A part of the item vectors is not finite", where="item vectors", got=broken)
