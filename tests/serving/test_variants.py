from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from pydantic import ValidationError

from palate.errors import InputError
from palate.serving.api import create_app
from palate.serving.pipeline_config import PipelineConfig
from palate.serving.state import Impression
from palate.serving.variants import Variants

BOLD = {"sources": {"exploration": 1.0}, "caps": {"leaf": 2}}
BASE = PipelineConfig(caps={"leaf": 9, "source": 8}, variants={"bold": BOLD})


def test_a_variant_is_what_differs() -> None:
    label, config = Variants(BASE).of("u", "bold")
    assert label == "forced:bold"
    assert (config.sources, config.caps.leaf, config.caps.source) == ({"exploration": 1.0}, 2, 8)
    assert Variants(BASE).of("u") == ("default", BASE)


@pytest.mark.parametrize(
    ("variant", "said"),
    [({"sources": {"absent": 1}}, "no such source"), ({"cap": {}}, "variants.x.cap"), ({"epsilon": 2}, "epsilon")],
)
def test_a_variant_that_cannot_be_is_refused_when_it_is_read(variant: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PipelineConfig(variants={"x": variant})


def test_who_chooses_decides_of_label_and_pipeline(snapshot_folder: Path) -> None:
    asked: list[str] = []

    def choose(unit: str) -> tuple[str, PipelineConfig]:
        asked.append(unit)
        return f"test/{unit}", PipelineConfig(sources={"sequence": 1.0})

    client = TestClient(create_app(snapshot_folder, choose=choose))
    answer = client.get("/v1/recommend/u0").json()
    assert answer["variant"] == "test/u0"
    assert {item["source"] for item in answer["items"]} == {"sequence"}
    client.post("/v1/recommend", json={"history": ["i0"]}, headers={"X-Request-ID": "r7"})
    assert asked == ["u0", "r7"]


def test_an_assignment_that_fails_costs_nobody_the_slate(snapshot_folder: Path) -> None:
    def choose(unit: str) -> tuple[str, PipelineConfig]:
        raise KeyError(unit)

    answer = TestClient(create_app(snapshot_folder, choose=choose)).get("/v1/recommend/u0")
    assert (answer.status_code, answer.json()["variant"]) == (200, "default")


def test_a_header_shows_a_declared_variant_and_is_logged_as_that(snapshot_folder: Path) -> None:
    app = create_app(snapshot_folder, pipeline=BASE)
    shown: list[Impression] = []
    app.state.live.show = shown.extend
    client = TestClient(app)
    answer = client.get("/v1/recommend/u3", headers={"X-Palate-Variant": "bold"}).json()
    assert answer["variant"] == "forced:bold"
    assert {each.variant for each in shown} == {"forced:bold"}
    assert {item["source"] for item in answer["items"]} <= {"exploration", "popular"}
    refused = client.get("/v1/recommend/u3", headers={"X-Palate-Variant": "absent"})
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["field"] == "X-Palate-Variant"
    with pytest.raises(InputError, match="no such variant"):
        Variants(BASE).of("u", "absent")


def test_the_documented_settings_are_the_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["serving"]
    documented = PipelineConfig.model_validate(settings)
    assert documented.model_copy(update={"variants": {}}) == PipelineConfig()
    assert documented.variant("bold").sources == {"sequence": 0.5, "exploration": 0.5}
