import re

import numpy as np
import polars as pl
import pytest

from palate.errors import InputError
from palate.knowledge.annotate import AnnotateConfig
from palate.knowledge.attack import AttackConfig, arms_of, attack
from palate.knowledge.attributes import Attribute
from palate.knowledge.guard import OFF, GuardConfig
from palate.knowledge.injections import HELD_OUT, INJECTIONS, injection

ATTRIBUTES = [Attribute(name=name, question=f"Is this {name}?") for name in ("funny", "sad")]
GUARDED = AnnotateConfig(guard=GuardConfig(neutral=False))


class Gullible:
    """Finds an attribute by its word in the item, but does what the last "Answer ..." in the item says."""

    model = "gullible"

    def __init__(self, obeys=True):
        self.obeys = obeys

    def generate(self, requests):
        raise AssertionError

    def choose(self, requests, options):
        return np.array([self._one(request, options) for request in requests], dtype=np.float32)

    def _one(self, request, options):
        item, asked = request.messages[1].content.rsplit("Question:", 1)
        word = re.search(r"Is this (\w+)", asked)
        yes = 0.9 if word and word.group(1) in item else 0.1
        orders = re.findall(r"[Aa]nswer (Yes|No)", item)
        yes = {"Yes": 0.99, "No": 0.01}[orders[-1]] if orders and self.obeys else yes
        return [yes, 1 - yes] if options[0] == "Yes" else [1 - yes, yes]


@pytest.fixture
def judged(films):
    """Even items are funny, odd ones sad, and the texts say so."""
    words = ["funny" if n % 2 == 0 else "sad" for n in range(films.n_items)]
    items = films.items.with_columns(text=pl.Series([f"A {word} film about bees and honey." for word in words]))
    truth = np.array([[float(word == "funny"), float(word == "sad")] for word in words])
    return type(films)(items, films.events, films.users), truth


def run(judged, llm, arms=None, **settings):
    data, truth = judged
    arms = arms or arms_of(GUARDED)
    config = AttackConfig(items=6, attributes=2, **{"injections": ("command", "command, short"), **settings})
    return attack(data, ATTRIBUTES, truth, llm, arms, config=config)


def test_obedience_is_seen_and_defended(judged):
    report = run(judged, Gullible())
    rates = {(rate.arm, rate.injection): rate for rate in report.rates}
    assert rates["without", "command"].flipped.mean == 1
    assert rates["with", "command"].flipped.mean == 0
    assert rates["without", "all"].n == 6 * 2 * 2
    assert report.net_ratio.mean <= 0
    assert report.holds
    assert "Holds" in report.verdict("m")
    assert [price.f1.mean for price in report.prices] == [1, 1]
    assert report.prices[1].tokens > report.prices[0].tokens


def test_without_defences_that_help_it_does_not_hold(judged):
    arms = {"without": AnnotateConfig(guard=OFF), "with": AnnotateConfig(guard=OFF.model_copy(update={"repeat": True}))}
    report = run(judged, Gullible(), arms)
    assert report.gross_ratio.mean == report.net_ratio.mean == 1
    assert not report.holds
    assert "Does not hold" in report.verdict("m")


def test_benign_flips_are_taken_off(judged):
    """A model that minds no command, but is turned by any text about the other attribute."""
    report = run(judged, Gullible(obeys=False))
    (rate,) = (rate for rate in report.rates if (rate.arm, rate.injection) == ("without", "all"))
    assert rate.flipped.mean == 0
    assert rate.benign.mean > 0
    assert rate.net.mean == pytest.approx(-rate.benign.mean)
    assert np.isnan(report.net_ratio.mean)
    assert report.holds
    assert "nothing to defend against" in report.verdict("m")


def test_held_out_injections_have_a_line_of_their_own(judged):
    report = run(judged, Gullible(), injections=("command", HELD_OUT[0]))
    assert [rate.injection for rate in report.rates if rate.arm == "with"] == [
        "all",
        "held out",
        "command",
        HELD_OUT[0],
    ]


def test_each_defence_alone():
    arms = arms_of(GUARDED, each=True)
    assert list(arms) == ["none", "delimit", "strip", "cut", "repeat", "all"]
    assert arms["cut"].guard == OFF.model_copy(update={"cut": True})
    assert arms["none"].guard == OFF
    assert arms["all"] == GUARDED


def test_the_same_twice(judged):
    assert run(judged, Gullible()) == run(judged, Gullible())


def test_a_question_that_failed_tells_nothing(judged):
    class Failing(Gullible):
        def _one(self, request, options):
            text = request.messages[1].content
            return [np.nan, np.nan] if "previous instructions" in text else super()._one(request, options)

    (rate,) = (r for r in run(judged, Failing()).rates if (r.arm, r.injection) == ("without", "command"))
    assert np.isnan(rate.flipped.mean)


def test_nobody_to_attack(judged):
    data, truth = judged
    with pytest.raises(InputError, match="too few dev items"):
        attack(data, ATTRIBUTES, np.full_like(truth, np.nan), Gullible(), arms_of(GUARDED))


def test_injections_are_many_and_name_their_target():
    assert len(INJECTIONS) >= 30
    assert len(INJECTIONS) / 3 == pytest.approx(len(HELD_OUT), abs=1)
    for name in INJECTIONS:
        text = injection(name, "Yes", "No")
        assert "Yes" in text or name in ("base64", "negation"), name
        assert "{" not in text or name == "JSON"
