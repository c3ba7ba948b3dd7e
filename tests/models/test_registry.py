"""Models by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from palate.errors import InputError
from palate.models.markov import Markov
from palate.models.registry import MODELS, make


@pytest.mark.parametrize("name", MODELS)
def test_makes_each_model_under_its_name(name: str) -> None:
    assert make(name).name == name


def test_passes_parameters() -> None:
    model = make("markov", {"prior": 7.0})
    assert isinstance(model, Markov)
    assert model.config.prior == 7.0


def test_names_what_there_is() -> None:
    with pytest.raises(InputError, match="no such model") as caught:
        make("sasrek")
    assert caught.value.got == "sasrek"
    assert "sasrec" in str(caught.value.allowed)


@pytest.mark.parametrize("params", [{"priors": 1}, {"prior": -1}, {"prior": "much"}])
def test_names_a_parameter_that_does_not_fit(params: dict[str, object]) -> None:
    with pytest.raises(InputError, match="parameters of the model markov") as caught:
        make("markov", params)
    assert "prior" in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "palate.models.sasrec", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="needs a package") as caught:
        make("sasrec")
    assert "palate[train]" in str(caught.value)


@pytest.mark.slow
def test_the_baselines_need_no_torch() -> None:
    code = (
        "import sys; from palate.models.registry import MODELS, make\n"
        "torch = ('gru4rec', 'hstu', 'learn', 'sasrec', 'two-tower')\n"
        "[make(n) for n in MODELS if n not in torch]; import palate.experiments.compare\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
