"""The vectors that the interest tree is cut by: what the configuration weighs, and what there is."""

from __future__ import annotations

import numpy as np

from palate.data.dataset import FloatArray
from palate.interests.vectors import COLLABORATIVE, MEDIA, TEXT, ItemVectors, collaborative, item_vectors
from palate.knowledge.annotate import item_text
from palate.knowledge.visual import visual_features
from palate.project.project import Project


def tree_vectors(project: Project, text: FloatArray) -> ItemVectors:
    """Join the parts that `interests.vectors` weighs; where no item has text, media and people's choices stand in.

    Args:
        text: The items' encoded texts, [n_items, d].
    """
    config = project.config.interests.vectors
    told = np.array([bool(item_text(project.dataset, num).strip()) for num in range(project.dataset.n_items)])
    parts: dict[str, FloatArray | None] = {TEXT: np.where(told[:, None], text, np.float32(0))}
    if config.weights.get(MEDIA, 0) > 0 or not told.any():
        media = project.media.read_items(project.dataset, range(project.dataset.n_items))
        described = [media[num].features if num in media else None for num in range(project.dataset.n_items)]
        parts[MEDIA] = visual_features(described)
    if config.weights.get(COLLABORATIVE, 0) > 0 or not told.any():
        parts[COLLABORATIVE] = collaborative(project.split.train, seed=config.seed)
    return item_vectors(parts, config)
