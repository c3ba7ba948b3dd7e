"""Which variant of which experiment a server gives to a person, and the pipeline that this makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from palate.data.assignment import assign_all, label
from palate.errors import InputError
from palate.experiments.declare import Experiment
from palate.knowledge.attributes import validation_error
from palate.serving.pipeline_config import PipelineConfig

UNIT = "user_id"


class Assigner:
    """The `choose` of `serving.api.create_app`: stateless, the same in every worker and on every host.

    Args:
        experiments: That can run together (`experiments.conflicts`); planned ones begin by themselves.
        pipeline: What variants lay their settings over.
        now: The clock.

    Raises:
        InputError: A variant's settings are no pipeline's, or units that a server does not know.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        pipeline: PipelineConfig | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.experiments = {each.name: each for each in experiments}
        self.splits = [each.split for each in experiments]
        self.pipeline, self.now = pipeline or PipelineConfig(), now
        self._made: dict[str, PipelineConfig] = {}
        for each in experiments:
            if each.unit != UNIT:
                raise InputError("A server tells people apart by user_id alone.", where=each.name, got=each.unit)
            for name, variant in each.variants.items():
                _over(self.pipeline, variant.settings, f"experiment {each.name}, variant {name}")

    def __call__(self, unit: str) -> tuple[str, PipelineConfig]:
        """The label to log and the pipeline of a unit, now."""
        assigned = assign_all(self.splits, unit, self.now())
        said = label(assigned)
        if said not in self._made:
            pipeline = self.pipeline
            for name, each in assigned.items():
                pipeline = _over(pipeline, self.experiments[name].variants[each.variant].settings, name)
            self._made[said] = pipeline
        return said, self._made[said]


def _over(pipeline: PipelineConfig, settings: dict[str, Any], where: str) -> PipelineConfig:
    """As `serving.variants` of palate.yaml are laid over the rest."""
    if not settings:
        return pipeline
    try:
        return pipeline.model_copy(update={"variants": {where: settings}}).variant(where)
    except ValidationError as error:
        raise validation_error(error, where, list(PipelineConfig.model_fields)) from error
