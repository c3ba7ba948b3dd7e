from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
from planted_log import END, START, experiment

from palate.data.assignment import assign, read_label
from palate.errors import InputError
from palate.project.assigning import Assigner
from palate.serving.pipeline_config import PipelineConfig

MIDDLE = START + timedelta(days=1)
BASE = PipelineConfig(epsilon=0.1)
PEOPLE = [f"u{n}" for n in range(200)]


def trial(name: str, **settings: object):
    variants = {"control": {"share": 0.5}, "on": {"share": 0.5, "settings": settings}}
    return experiment(name=name, variants=variants)


def test_people_get_the_pipeline_of_their_variants():
    both = [trial("caps", caps={"leaf": 2}), trial("draw", probe=8)]
    choose = Assigner(both, BASE, lambda: MIDDLE)
    seen = set()
    for unit in PEOPLE:
        label, pipeline = choose(unit)
        said = {name: each.variant for name, each in read_label(label).items()}
        assert said == {each.name: assign(each.split, unit, MIDDLE).variant for each in both}
        assert (pipeline.caps.leaf == 2) == (said["caps"] == "on") and (pipeline.probe == 8) == (said["draw"] == "on")
        assert pipeline.epsilon == BASE.epsilon
        seen.add(label)
        assert choose(unit) == (label, pipeline)
    assert len(seen) == 4


def test_nobody_is_taken_before_the_start_and_after_the_end():
    moments = iter((START - timedelta(seconds=1), MIDDLE, END))
    choose = Assigner([trial("caps", caps={"leaf": 2})], BASE, lambda: next(moments))
    labels = [choose("u1") for _ in range(3)]
    assert [label == "default" for label, _ in labels] == [True, False, True]
    assert labels[0][1] is BASE


def test_a_control_is_served_as_everybody():
    choose = Assigner([trial("caps", caps={"leaf": 2})], BASE, lambda: MIDDLE)
    assert next(pipeline for label, pipeline in map(choose, PEOPLE) if label == "caps:control") is BASE


def test_what_cannot_be_served_is_refused_at_the_start():
    with pytest.raises(InputError) as error:
        Assigner([trial("caps", cap={"leaf": 2})], BASE)
    assert "experiment caps, variant on" in str(error.value) and "caps" in str(error.value)
    with pytest.raises(InputError, match="user_id alone"):
        Assigner([experiment(unit="device_id")], BASE)
    with pytest.raises(InputError):
        Assigner([trial("sources", sources={"sequence": -1})], BASE)
