from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from planted_log import END, START, experiment

from palate.errors import InputError
from palate.experiments.conflicts import check_together
from palate.experiments.declare import read_experiments
from palate.experiments.register import Register

MIDDLE = START + timedelta(days=3)
HALVES = {"control": {"share": 0.5}, "more": {"share": 0.5}}


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"variants": {}}, "two variants or more"),
        ({"variants": {"a": {"share": 1.0}}}, "two variants or more"),
        ({"variants": {"a": {"share": 0.7}, "b": {"share": 0.7}}}, "come to 1.4"),
        ({"variants": {"a": {"share": 0.0}, "b": {"share": 1.0}}}, "greater than 0"),
        ({"variants": {"a|b": {"share": 0.5}, "c": {"share": 0.5}}}, "pattern"),
        ({"variants": {"a": {"share": 0.5, "setings": {}}, "b": {"share": 0.5}}}, "settings"),
        ({"start": datetime(2026, 3, 2)}, "timezone"),
        ({"name": "forced"}, "another name"),
        ({"end": START}, "ends before it starts"),
        ({"slots": (0.5, 0.5)}, "stretch"),
        ({"control": "nobody"}, "no variant 'nobody'"),
        ({"overrides": {"u1": "less"}}, "no variant 'less'"),
        ({"primary": "clicks"}, "no metric 'clicks'"),
        ({"metrics": ["click_rate"]}, "named twice"),
        ({"metrics": ["uci@0"]}, "no metric 'uci@0'"),
        ({"define": {"m": {"of": ["play"], "per": "impression", "winsorise": 0.9}}}, "values of people"),
        ({"minimum_efect": 0.1}, "minimum_effect"),
    ],
)
def test_what_cannot_be_is_named(said, named):
    with pytest.raises(InputError) as error:
        experiment(**said)
    assert named in str(error.value) and str(said.get("name", "trial")) in str(error.value)


def test_files_and_sections_are_read_together(tmp_path: Path):
    said = {"variants": HALVES, "start": START, "end": END}
    (tmp_path / "novelty.yaml").write_text(yaml.safe_dump(said))
    found = read_experiments({"ranker": said}, tmp_path)
    assert [each.name for each in found] == ["ranker", "novelty"]
    with pytest.raises(InputError, match="declared twice"):
        read_experiments({"novelty": said}, tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="mapping"):
        read_experiments({}, tmp_path)


def named(name: str, **said: object):
    return experiment(**{"name": name, **said})


def test_overlapping_slots_of_a_layer_are_refused_and_what_is_free_is_said():
    left, right = named("a", layer="x", slots=(0.2, 0.5)), named("b", layer="x", slots=(0.4, 1.0))
    with pytest.raises(InputError) as error:
        check_together([left, right])
    assert "free: 0 to 0.2" in str(error.value) and "a and b" in str(error.value)
    beside = named("b", layer="x", slots=(0.5, 1.0))
    later = named("b", layer="x", start=END, end=END + timedelta(days=1))
    check_together([left, beside])
    check_together([left, later])
    check_together([left, named("b", slots=(0.2, 0.5))])  # a layer of its own


def test_two_experiments_must_not_set_the_same_thing_for_one_person():
    def setting(name: str, **settings: object):
        return named(name, variants={"control": {"share": 0.5}, "on": {"share": 0.5, "settings": settings}})

    check_together([setting("a", probe=3), setting("b", epsilon=0.1)])
    with pytest.raises(InputError, match=r"set the same thing"):
        check_together([setting("a", caps={"leaf": 2}), setting("b", caps={"creator": 2})])
    with pytest.raises(InputError, match="salt"):
        check_together([named("a", salt="s"), named("b", salt="s")])


def test_the_split_must_not_change_while_it_runs(tmp_path: Path):
    register, declared = Register(tmp_path), experiment()
    register.start(declared, START - timedelta(days=1))
    register.start(experiment(salt="before"), START - timedelta(days=1))  # not running: may be changed
    register.start(declared, START - timedelta(hours=1))
    register.start(declared, MIDDLE)
    register.start(declared, MIDDLE)
    moved = experiment(start=START.astimezone().isoformat(), end=END)
    assert moved.fingerprint() == declared.fingerprint()
    register.start(moved, MIDDLE)
    turned = {"more": {"share": 0.5}, "control": {"share": 0.5}}
    for said in (
        {"variants": {"control": {"share": 0.4}, "more": {"share": 0.6}}},
        {"variants": {"control": {"share": 0.5}, "more": {"share": 0.5, "settings": {"epsilon": 0.5}}}},
        {"salt": "other"},
        {"slots": (0.0, 0.5)},
        {"variants": turned},
    ):
        changed = experiment(**said)
        with pytest.raises(InputError) as error:
            register.start(changed, MIDDLE)
        assert "changed while it runs" in str(error.value) and next(iter(said)) in str(error.value)
        assert register.changes(changed).split and not register.changes(declared).split


def test_metrics_that_were_changed_after_a_look_are_named(tmp_path: Path):
    register = Register(tmp_path)
    register.start(experiment(), MIDDLE)
    changed = experiment(primary="positive_rate", end=END + timedelta(days=7))
    register.start(changed, MIDDLE)
    said = register.changes(changed)
    assert not said.split and len(said.plan) == 2 and "positive_rate" in said.plan[1]
    (tmp_path / "trial" / "declared.json").write_text("{")
    with pytest.raises(InputError.__base__, match="cannot be read"):
        register.changes(changed)


def test_status():
    declared = experiment()
    moments = [START - timedelta(seconds=1), START, END]
    assert [declared.status(moment.astimezone(UTC)) for moment in moments] == ["planned", "running", "ended"]
