"""Genre Spectrum (Tubi, RecSys 2023, arXiv 2309.08787): do a genre network's inner vectors make better neighbours?

Claim: among an item's nearest by the layer before the genres, more share a genre with it than among the nearest by the
raw text vector, most of all in the tail, and convex combinations of items help. Baselines: the raw sentence vectors,
and their principal components of the same width. Controls: the same network without combinations, the same network
taught shuffled genres, and items drawn at random. Read are titles, and texts unless they name the categories; networks
and components see the items of one half, all figures are of neighbours within the other. Settings: `neighbours`,
`epochs`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError
from palate.evaluation.bootstrap import Interval
from palate.evaluation.controls import judge_arms
from palate.experiments.study import Chart, Report, ReportTable, Study
from palate.knowledge.blocks import item_blocks
from palate.knowledge.genre_spectrum import GenreSpectrum, SpectrumConfig, shared_genre

RAW, PCA, SPECTRUM, PLAIN = "raw vectors", "principal components", "genre spectrum", "without combinations"
SHUFFLED, CHANCE = "shuffled genres", "at random"
Shares = npt.NDArray[np.float64]


def genre_spectrum(study: Study) -> Report:
    """Train on one half of the items, compare neighbours within the other."""
    vectors, genres, items = _material(study)
    config = SpectrumConfig(epochs=int(study.settings.get("epochs", SpectrumConfig().epochs)))
    n_neighbours = int(study.settings.get("neighbours", 20))
    found: dict[str, list[Shares]] = {}
    judged = []
    for seed in range(study.seeds):
        order = np.random.default_rng(seed).permutation(len(items))
        taught, held = order[: len(order) // 2], order[len(order) // 2 :]
        judged.append(items[held])
        for name, made in _vectors_of(vectors, genres, taught, held, config, seed).items():
            share = shared_genre(made, genres[held] > 0, n_neighbours)
            found.setdefault(name, []).append(share)
        study.progress("genre spectrum", seed + 1, study.seeds)
    shares = {name: np.concatenate(parts) for name, parts in found.items()}
    return _report(study, shares, np.concatenate(judged), n_neighbours, len(items))


def _material(study: Study) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Text vectors and genres of the items that have categories, and their numbers."""
    (genres,) = item_blocks(study.dataset, ("categories",)) or [np.zeros((study.dataset.n_items, 0), np.float32)]
    items = np.flatnonzero(genres.sum(axis=1) > 0)
    if len(items) < 100:
        raise InputError("Too few items have categories.", got=len(items), allowed="100 or more")
    return study.encoder.encode(_texts(study.dataset, items)), genres[items], items


def _texts(dataset: Dataset, items: npt.NDArray[np.int64]) -> list[str]:
    """Titles and texts; titles alone where the texts say the categories, as those made of a MovieLens file do."""
    titles, texts = (dataset.items[column].to_list() for column in ("title", "text"))
    said = [""] * len(texts) if texts_tell(dataset) else [text or "" for text in texts]
    return [f"{titles[i]}\n{said[i]}".strip() for i in items.tolist()]


def texts_tell(dataset: Dataset) -> bool:
    """Whether most texts name all of their item's categories: then neighbours by text are neighbours by category."""
    rows = dataset.items.select("text", "categories").drop_nulls().iter_rows()
    told = [all(name.casefold() in text.casefold() for name in names) for text, names in rows if names]
    return bool(np.mean(told or [False]) > 0.5)


def _vectors_of(
    vectors: FloatArray,
    genres: FloatArray,
    taught: npt.NDArray[np.int64],
    held: npt.NDArray[np.int64],
    config: SpectrumConfig,
    seed: int,
) -> Mapping[str, FloatArray]:
    rng = np.random.default_rng(seed)

    def network(labels: FloatArray, **changes: float) -> FloatArray:
        made = GenreSpectrum(config.model_copy(update={"seed": seed, **changes}))
        return made.fit(vectors[taught], labels).encode(vectors[held])

    mean = vectors[taught].mean(axis=0)
    axes = np.linalg.svd(vectors[taught] - mean, full_matrices=False)[2][: config.width]
    return {
        SPECTRUM: network(genres[taught]),
        PLAIN: network(genres[taught], mix=0.0),
        RAW: vectors[held],
        PCA: np.asarray((vectors[held] - mean) @ axes.T, dtype=np.float32),
        SHUFFLED: network(genres[taught][rng.permutation(len(taught))]),
        CHANCE: rng.standard_normal((len(held), 8)).astype(np.float32),
    }


def _report(study: Study, shares: Mapping[str, Shares], items: npt.NDArray[np.int64], k: int, n_items: int) -> Report:
    """Intervals resample items; an item's figures of several seeds stay together."""
    others = [name for name in shares if name != SPECTRUM]
    judged = judge_arms(shares, items, [(SPECTRUM, name) for name in others])
    overall = [{"vectors": name, **_keys("share", figure)} for name, figure in judged.figures.items()]
    differences = [
        {"spectrum less": c.against, **_keys("difference", c.difference), "p": c.p_value} for c in judged.contrasts
    ]
    rows, few = [], {name: shares[name] for name in (SPECTRUM, PLAIN, RAW, PCA)}
    deciles = _deciles(study.dataset)[items]
    for decile in range(1, 11):
        within = deciles == decile
        for name, figure in judge_arms(few, items, [], within=within).figures.items():
            row = {"decile": decile, "vectors": name, "n": len(set(items[within].tolist()))}
            rows.append(row | _keys("share", figure))
    return Report(
        "Genre Spectrum: neighbours that share a genre",
        _verdict(differences, rows),
        [
            ReportTable(f"Share of the {k} nearest with a genre in common", overall),
            ReportTable("Paired differences on the same items", differences, "p after Holm over all of these"),
            ReportTable("By popularity, 1 the least met", rows),
        ],
        [Chart("By popularity decile", "lines", rows, "decile", "share", "vectors")],
        [
            f"{n_items} items with categories, {study.seeds} random halves; deciles by number of events.",
            *(["Most texts name the categories: titles alone were read."] if texts_tell(study.dataset) else []),
        ],
    )


def _verdict(differences: list[dict[str, object]], rows: list[dict[str, object]]) -> list[str]:
    said = []
    for row in differences:
        mean, low, high = (float(str(row[f"difference{end}"])) for end in ("", "_low", "_high"))
        word = "more" if low > 0 else "fewer" if high < 0 else "neither more nor fewer"
        text = (
            f"Against {row['spectrum less']}, {word} neighbours share a genre: {mean:+.3f} [{low:+.3f}, {high:+.3f}]."
        )
        said.append((mean, text))
    share = {(row["decile"], row["vectors"]): float(str(row["share"])) for row in rows}
    tail, head = (share[decile, SPECTRUM] - share[decile, RAW] for decile in (1, 10))
    return [text for _, text in sorted(said)] + [
        f"The gain over raw vectors is {tail:+.3f} in the least met tenth and {head:+.3f} in the most met."
    ]


def _keys(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _deciles(dataset: Dataset) -> npt.NDArray[np.int64]:
    ranks = np.argsort(np.argsort(dataset.item_counts, kind="stable"), kind="stable")
    return np.asarray(ranks * 10 // len(ranks) + 1)
