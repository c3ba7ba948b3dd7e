"""Which pipeline a request gets: that of `palate.yaml`, the one an experiment chose, or one that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from palate.errors import InputError
from palate.serving.pipeline_config import PipelineConfig

Choose = Callable[[str], tuple[str, PipelineConfig]]
"""From who is asked about (a user id, or a request id where there is no user) to a label and a pipeline."""

DEFAULT = "default"
FORCED = "forced:"  # before the label of a variant that a header asked for: no experiment counts it

_log = logging.getLogger(__name__)


class Variants:
    """Pipelines by label.

    Args:
        default: For everybody, where nothing chooses. Its `variants` can be asked for by name.
        choose: The assignment of an experiment; one that fails costs nobody the slate: then it is the default's.
    """

    def __init__(self, default: PipelineConfig | None = None, choose: Choose | None = None) -> None:
        self.default, self.choose = default or PipelineConfig(), choose
        self.named: Mapping[str, PipelineConfig] = {
            DEFAULT: self.default,
            **{name: self.default.variant(name) for name in self.default.variants},
        }

    def of(self, unit: str, forced: str | None = None) -> tuple[str, PipelineConfig]:
        """The label that impressions are logged under, and the pipeline.

        Raises:
            InputError: if the variant that is asked for is not declared.
        """
        if forced is not None:
            if forced not in self.named:
                raise InputError(
                    "There is no such variant", where="X-Palate-Variant", got=forced, allowed=", ".join(self.named)
                )
            return FORCED + forced, self.named[forced]
        if self.choose is None:
            return DEFAULT, self.default
        try:
            return self.choose(unit)
        except Exception as error:
            _log.warning("no variant could be chosen: %s", type(error).__name__, exc_info=error)
            return DEFAULT, self.default
