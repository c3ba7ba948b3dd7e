import numpy as np
import pytest

from palate.knowledge.cost import Way, asked, cascade, people, per_million, student
from palate.llm.prices import Prices


def test_a_million_items_by_the_price_list_and_by_the_hour():
    large = Way("large", tokens_in=1000, tokens_cached=400, tokens_out=10, prices=Prices(2.0, 8.0, 0.5))
    crowd = people(12, seconds=10, wage=18)
    (first, second) = per_million([large, crowd])
    assert first["money"] == pytest.approx(600 * 2 + 400 * 0.5 + 10 * 8)
    assert first["hours"] is None and first["tokens_in"] == 1e9
    assert second["money"] == pytest.approx(1e6 * 120 / 3600 * 18)
    assert per_million([Way("unknown")])[0]["money"] is None


def test_a_cascade_pays_each_way_for_what_reaches_it():
    ways = [Way("a", seconds=1, hourly=3600), Way("b", seconds=10, hourly=3600), Way("c")]
    both = cascade(ways, [1.0, 0.25, 0.0])
    assert both.money == pytest.approx(3.5) and both.seconds == pytest.approx(3.5)
    assert "b 25%" in both.basis and "c 0%" not in both.basis
    assert cascade(ways, [1.0, 0.0, 0.1]).money is None  # what nobody knows is not guessed


def test_a_model_costs_what_the_ledger_says_it_took():
    totals = [
        {"model": "m", "calls": 3, "tokens_in": 300, "tokens_cached": 30, "tokens_out": 3, "seconds": 6.0},
        {"model": "m", "calls": 1, "tokens_in": 100, "tokens_cached": 10, "tokens_out": 1, "seconds": 2.0},
        {"model": "other", "calls": 1, "tokens_in": 9, "tokens_cached": 0, "tokens_out": 9, "seconds": 9.0},
    ]
    way = asked(totals, "m", calls_per_item=5, prices=None, hourly=0.36)
    assert (way.tokens_in, way.tokens_cached, way.tokens_out, way.seconds) == (500, 50, 5, 10)
    assert way.money == pytest.approx(0.001)
    assert asked(totals, "never", 5, None, None) is None


class Slow:
    name, width = "slow", 4

    def encode(self, texts):
        return np.zeros((len(texts), 4), dtype=np.float32)


def test_a_student_is_timed_with_and_without_its_encoder():
    bare, whole = student(Slow(), ["a text"] * 20, np.zeros((500, 16), dtype=np.float32), 3, 0.1)
    assert 0 < bare.seconds < whole.seconds < 0.01
    assert bare.money < whole.money
