"""Side vectors with a time: a sample meets the newest version of its user's knowledge that is older than itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palate.data.dataset import IntArray
from palate.data.samples import Samples
from palate.knowledge.as_of import Versions
from palate.models.ranking.ranker import SideVectors


@dataclass(frozen=True)
class AsOfVectors(SideVectors):
    """`users` has a row for each version instead of one for each user."""

    versions: Versions

    def rows(self, samples: Samples) -> tuple[IntArray, IntArray]:
        return self.versions.at(samples.users, samples.times).astype(np.int32), samples.items
