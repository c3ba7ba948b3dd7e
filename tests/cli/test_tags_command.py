"""`palate tags` in a project: what it writes, what it keeps, what it says when it cannot."""

import json

import numpy as np
import polars as pl
import pytest
import yaml

from palate.knowledge.handbook import read_handbook

WORDS = ("sea", "war", "love", "space", "crime", "farm", "music", "ghost")


@pytest.fixture
def project(tmp_path):
    """60 stories about eight things; each person reads about one of two halves of them."""
    rng = np.random.default_rng(0)
    items = [(f"i{n}", f"A story of {WORDS[n % 8]} {n}", f"About {WORDS[n % 8]}.") for n in range(60)]
    pl.DataFrame(items, schema=["item_id", "title", "text"], orient="row").write_parquet(tmp_path / "items.parquet")
    events = [
        (f"u{u}", f"i{rng.integers(30) * 2 + u % 2}", 1_600_000_000 + 600 * k + u) for u in range(40) for k in range(15)
    ]
    table = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    table.sort("timestamp").write_parquet(tmp_path / "events.parquet")
    config = {"data": {"items": "items.parquet", "events": "events.parquet"}}
    (tmp_path / "palate.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_help_teaches(palate):
    out = palate("tags", "--help")[1]
    assert all(command in out for command in ("handbook", "extract", "distil", "measure"))
    assert all("Example" in palate("tags", command, "--help")[1] for command in ("handbook", "extract", "distil"))


@pytest.mark.slow
def test_a_handbook_is_mined_once_and_not_overwritten(palate, project):
    code, out, _ = palate("tags", "handbook", "--project", project, "--json")
    assert code == 0
    assert "dimensions kept" in json.loads(out)["all"]
    (section,) = read_handbook(project / "handbook.yaml").sections
    assert section.tested > 0
    (project / "handbook.yaml").write_text("sections: []  # mine\n")
    code, _, err = palate("tags", "handbook", "--project", project)
    assert (code, "--replace" in err) == (2, True)
    assert "# mine" in (project / "handbook.yaml").read_text()
    assert palate("tags", "handbook", "--project", project, "--replace", "--json")[0] == 0
    assert "# mine" not in (project / "handbook.yaml").read_text()


def test_what_is_missing_is_named(palate, project):
    for arguments, said in [
        (("extract",), "palate tags handbook"),
        (("distil",), "palate tags extract"),
        (("measure", "--set", "items"), "name=value"),
        (("measure", "--set", "itmes=3"), "Did you mean 'items'"),
    ]:
        code, _, err = palate("tags", *arguments, "--project", project)
        assert (code, said in err, "Traceback" in err) == (2, True, False), err


def test_an_adapter_is_for_the_torch_engine(palate, project):
    config = yaml.safe_load((project / "palate.yaml").read_text()) | {"llm": {"engine": "llama", "adapter": "a"}}
    (project / "palate.yaml").write_text(yaml.safe_dump(config))
    code, _, err = palate("tags", "extract", "--route", "plain", "--project", project)
    assert (code, "Only the engine torch reads an adapter" in err) == (2, True)


@pytest.mark.slow
def test_the_embedded_model_tags_a_sample(palate, project):
    pytest.importorskip("xllamacpp", reason="needs the extra `embedded`")
    asked = ("tags", "extract", "--items", 3, "--route", "plain", "--n", 2, "--project", project, "--json")
    made = json.loads(palate(*asked)[1])
    assert (made["items"], made["items_without_text"]) == (3, 0)
    assert made["tokens"] > 0
    rows = pl.read_parquet(made["file"])
    assert rows["source"].unique().to_list() == ["llm"]
    assert json.loads(palate(*asked)[1]) == made


@pytest.mark.slow
def test_a_student_carries_imported_tags_to_every_item(palate, project):
    rows = [
        {"kind": "tag", "entity": f"i{n}", "name": "tag", "text": WORDS[n % 8], "model": "t", "source": "human"}
        for n in range(48)
    ]
    (project / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert palate("import", project / "answers.jsonl", "--project", project)[0] == 0
    code, out, _ = palate("tags", "distil", "--n", 1, "--project", project, "--json")
    assert code == 0
    made = pl.read_parquet(json.loads(out)["file"])
    assert made["entity"].n_unique() == 60
    right = [WORDS[int(entity[1:]) % 8] == tag for entity, tag in made.select("entity", "text").iter_rows()]
    assert np.mean(right) > 0.8
