"""`Settings`: a recipe's own numbers, as they are given on the command line (`--set name=value`)."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from palate.experiments.study import Study
from palate.knowledge.attributes import validation_error


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def of(cls, study: Study) -> Self:
        """Those of a study.

        Raises:
            InputError: One is unknown or out of bounds, named.
        """
        try:
            return cls.model_validate(dict(study.settings))
        except ValidationError as error:
            raise validation_error(error, "--set", list(cls.model_fields)) from error
