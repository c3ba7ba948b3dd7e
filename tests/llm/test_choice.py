import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import InputError
from palate.llm.asking import LedgeredLLM
from palate.llm.choice import averaged, calibrated, in_orders, rotations
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Bound
from palate.testing import ask_user

OPTIONS = ("low", "middle", "high")


class Biased:
    """Knows what is true, but adds a third to the option that stands first, and likes "high" without any reason."""

    name, model = "biased", "b"
    truth, liking = np.array([0.6, 0.3, 0.1]), np.array([1.0, 1.0, 2.0])

    def bound(self, request):
        return Bound()

    def close(self):
        pass

    def ask(self, work):
        while taken := work.take(8):
            yield [(number, self._answer(request)) for number, request in taken]

    def _answer(self, request):
        known = request.messages[-1].text != "N/A"
        shares = {o: float(t if known else 1 / 3) * x for o, t, x in zip(OPTIONS, self.truth, self.liking, strict=True)}
        total = sum(shares.values())
        listed = [shares[option] / total for option in request.options]
        listed[0] += 1 / 3
        return Answer(probabilities=tuple(s / sum(listed) for s in listed), model="b", engine="biased", method="exact")


@pytest.fixture
def llm(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        yield LedgeredLLM(Biased(), ledger)


def test_orders_take_the_favour_of_the_first_place_away(llm):
    requests = [ask_user("a"), ask_user("b")]
    plain = llm.choose(requests, OPTIONS)
    fair = llm.choose(requests, OPTIONS, orders=3)
    goal = Biased.truth * Biased.liking / (Biased.truth * Biased.liking).sum()
    np.testing.assert_allclose(fair, np.tile((goal + 1 / 9) / (4 / 3), (2, 1)), atol=1e-6)
    assert plain[0, 0] > fair[0, 0]
    np.testing.assert_allclose(fair.sum(axis=1), 1, atol=1e-6)


def test_content_free_questions_take_the_liking_away(llm):
    fair = llm.choose([ask_user("a")], OPTIONS, orders=3)
    calm = llm.choose([ask_user("a")], OPTIONS, orders=3, content_free=[ask_user("N/A")])
    assert fair[0, 2] > calm[0, 2]
    assert calm[0].argmax() == 0
    np.testing.assert_allclose(calm.sum(axis=1), 1, atol=1e-6)


@given(st.integers(1, 6), st.data())
def test_each_option_stands_at_each_place_once(n, data):
    options = tuple(map(str, range(n)))
    orders = data.draw(st.integers(1, n))
    found = rotations(options, orders)
    assert found[0] == options
    assert all(len({order[place] for order in found}) == orders for place in range(n))
    truth = np.random.default_rng(0).dirichlet(np.ones(n), size=4)
    asked = in_orders([ask_user(str(row)) for row in range(4)], options, orders)
    told = [[truth[int(r.messages[0].text)][int(option)] for option in r.options] for r in asked]
    np.testing.assert_allclose(averaged(told, n, orders), truth, atol=1e-6)


def test_what_failed_is_left_out():
    table = averaged([[0.9, 0.1], None, None, None], 2, 2)
    np.testing.assert_allclose(table[0], [0.9, 0.1])
    assert np.isnan(table[1]).all()
    with pytest.raises(InputError, match="content-free"):
        calibrated(table, np.full((1, 2), np.nan, dtype=np.float32))


def test_too_many_orders():
    with pytest.raises(InputError, match="orders") as caught:
        rotations(("Yes", "No"), 3)
    assert "1 to 2" in str(caught.value)
