"""What was known of an item before a moment: how often it was met, how it was rated, when last."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.samples import Places
from palate.data.splits import has_clock

_PRIOR = 5.0  # events of mean value that every mean begins with


class ItemPast:
    """Counts, means and last times of items as of a moment, strictly before it.

    Without a clock (times are places in a sequence, or all the same) nothing is before: then each item has its count
    over the training events, no mean (that would hold the very label that is to be predicted) and no last time.

    Args:
        dataset: What happened.
        training: Which events are training events, [n_events] flags in the order of `dataset.events`.
        prior: The mean value of the training events; NaN: there are no values.
    """

    names = ("item_count", "item_mean", "item_gap")

    def __init__(self, dataset: Dataset, training: npt.NDArray[np.bool_], prior: float) -> None:
        self.clock, self.prior = has_clock(dataset), prior
        items = dataset.events["item_num"].to_numpy().astype(np.int64)
        self.counts = np.bincount(items[training], minlength=dataset.n_items)
        times = dataset.events["timestamp"].to_physical().to_numpy().astype(np.int64)
        values = dataset.events["value"].to_numpy().astype(np.float64)
        self.times = times  # sorted: so are events
        order = np.argsort(items, kind="stable")
        self.keys = self._keys(items, times)[order]
        self.starts = np.searchsorted(items[order], np.arange(dataset.n_items))
        self.sorted_times = times[order]
        self.sums = np.concatenate([[0.0], np.nancumsum(values[order])])
        self.rated = np.concatenate([[0], np.cumsum(np.isfinite(values[order]))])

    def __call__(self, items: IntArray, times: Places) -> FloatArray:
        """[n, 3], NaN where there is nothing to say."""
        n = len(items)
        if not self.clock:
            nothing = np.full(n, np.nan)
            return np.stack([np.log1p(self.counts[items]), nothing, nothing], axis=1).astype(np.float32)
        begin = self.starts[items]
        end = np.searchsorted(self.keys, self._keys(items.astype(np.int64), times))
        mean = smoothed(self.sums[end] - self.sums[begin], self.rated[end] - self.rated[begin], self.prior)
        last = self.sorted_times[np.maximum(end - 1, 0)]
        return np.stack([np.log1p(end - begin), mean, log_gap(times - last, end > begin)], axis=1).astype(np.float32)

    def _keys(self, items: npt.NDArray[np.int64], times: Places) -> npt.NDArray[np.int64]:
        """Ordered by item, then by how many events were strictly before the time."""
        return items * (len(self.times) + 1) + np.searchsorted(self.times, times, side="left")


def smoothed(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], prior: float) -> npt.NDArray[np.float64]:
    """Means that begin at `prior` and leave it as counts grow."""
    return np.asarray((sums + _PRIOR * prior) / (counts + _PRIOR))


def log_gap(microseconds: Places, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """log(1 + seconds), NaN where not known."""
    return np.where(known, np.log1p(np.maximum(microseconds, 0) / 1e6), np.nan)
