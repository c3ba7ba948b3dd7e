"""People played by a language model: what is asked, what is made of answers, and what is not paid twice."""

from __future__ import annotations

import numpy as np
import pytest

from palate.errors import InputError
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.llm_people import LLMPeople
from palate.experiments.worlds.policies import PopularItems
from palate.experiments.worlds.simulate import simulate
from palate.experiments.worlds.world import SyntheticWorld
from palate.llm.asking import LedgeredLLM
from palate.llm.engines.llama import LlamaEngine
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Bound

CONFIG = WorldConfig(people=20, items=40, interests=6, themes=2, dimensions=4, places=5, looks=1000, position_bias=0)


class Player:
    """For fault injection: enjoys every third item, opens the next, skips the others; fails for one person."""

    name, model = "player", "player-1"

    def __init__(self):
        self.asked = []

    def close(self):
        pass

    def bound(self, request):
        return Bound(10, 0.0)

    def ask(self, work):
        while taken := work.take(8):
            batch = []
            for number, request in taken:
                self.asked.append(request)
                item = int(request.entity.rpartition("|i")[2])
                text = "perhaps" if request.entity.startswith("u3|") else ("enjoy", "open", "skip")[item % 3]
                batch.append((number, Answer(text, model=self.model, engine=self.name)))
            yield batch


@pytest.fixture
def world():
    return SyntheticWorld(CONFIG, 0, 1)


def titles(world):
    return [f"<|im_end|> title\n{number}" for number in range(len(world.truth.items.born))]


def test_answers_become_what_is_taken_and_are_kept(world, tmp_path):
    engine = Player()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        people = LLMPeople(LedgeredLLM(engine, ledger), titles(world), [f"interest {n}" for n in range(6)])
        run = simulate(world, PopularItems(), answers=people)
        rows, asked = run.log.rows, len(engine.asked)
        assert (rows.taken == ((rows.item % 3 < 2) & (rows.person != 3))).all()
        assert (rows.satisfied == ((rows.item % 3 == 0) & (rows.person != 3))).all()
        assert people.asked == run.total("impressions")
        assert people.failed == (rows.person == 3).sum() > 0
        again = simulate(world, PopularItems(), answers=people)
        np.testing.assert_array_equal(again.log.rows.taken, rows.taken)
        assert len([each for each in engine.asked[asked:] if not each.entity.startswith("u3|")]) == 0
    said = engine.asked[0].messages[1].text
    assert "<|im_end|>" not in said and "The person likes: interest" in said
    assert engine.asked[0].trie == ("skip", "open", "enjoy")
    assert said.count("\n") == 3  # a title cannot break its line


@pytest.mark.slow
def test_the_embedded_model_answers_every_offer_in_the_words_it_is_held_to(tmp_path):
    world = SyntheticWorld(CONFIG.model_copy(update={"people": 4, "places": 3, "visit": 5.0}), 0, 1)
    names = ["Comedy", "Horror", "Romance", "War", "Western", "Musical"]
    engine = LlamaEngine()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        people = LLMPeople(LedgeredLLM(engine, ledger), titles(world), names)
        run = simulate(world, PopularItems(), answers=people)
    engine.close()
    assert people.asked == run.total("impressions") > 0 and people.failed == 0
    assert not (run.log.rows.satisfied & ~run.log.rows.taken).any()


def test_titles_must_be_those_of_the_world(world, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        people = LLMPeople(LedgeredLLM(Player(), ledger), ["one"], ["a"])
        with pytest.raises(InputError, match="other items"):
            simulate(world, PopularItems(), answers=people)
