"""`palate annotate fresh` on a growing project, with a stand-in for the LLM."""

import json

import polars as pl
import pytest
from film_project import FilmEngine, palate, project  # noqa: F401  (fixtures)


def grow(folder, rows):
    path = folder / "items.csv"
    table = pl.read_csv(path, infer_schema=False)
    if "director" not in table.columns:
        table = table.with_columns(director=pl.Series([f"D{k % 4}" for k in range(table.height)]))
    new = pl.DataFrame(rows, schema=table.schema, orient="row")
    pl.concat([table, new]).unique("item_id", keep="last", maintain_order=True).write_csv(path)


def fresh(palate, folder, *options):  # noqa: F811
    code, out, err = palate("fresh", "-p", folder, "--json", *options)
    assert out, err
    return code, json.loads(out)


def newest_labels(palate, folder):  # noqa: F811
    """What `palate annotate` makes of all that was asked."""
    assert palate("--project", folder)[0] == 0
    made = (folder / ".palate" / "steps").glob("annotate-*/label.parquet")
    return pl.read_parquet(max(made, key=lambda path: path.stat().st_mtime_ns))


@pytest.mark.slow
def test_only_what_is_new_or_changed_is_asked(palate, project):  # noqa: F811
    grow(project, [])
    assert palate("--project", project)[0] == 0  # palate annotate
    code, first = fresh(palate, project)
    assert (code, first["first_visit"], first["due"], first["calls"]) == (0, True, {}, 0)
    asked = len(FilmEngine.asked)
    grow(project, [("n1", "New", "a battle", "Battle", "D1")])
    assert fresh(palate, project, "--plan")[1]["due"] == {"new": 1}
    assert fresh(palate, project)[1]["due"] == {"new": 1}
    assert [request.entity for request in FilmEngine.asked[asked:]] == ["n1"]
    assert fresh(palate, project)[1]["due"] == {}
    assert newest_labels(palate, project).filter(pl.col("entity") == "n1").height == 1
    grow(project, [("n1", "New", "another battle", "Battle", "D1")])
    assert fresh(palate, project)[1]["due"] == {"changed": 1}
    assert newest_labels(palate, project).filter(pl.col("entity") == "n1").height == 1
    assert fresh(palate, project, "--plan")[1]["due"] == {}
    moods = project / "attributes" / "moods.yaml"
    moods.write_text(moods.read_text().replace("Is this calm?", "Is this gentle?"))
    assert set(fresh(palate, project, "--plan")[1]["due"]) == {"reworded"}


def test_an_item_that_was_not_answered_stays_due(palate, project, monkeypatch):  # noqa: F811
    fresh(palate, project)
    grow(project, [("n1", "New", "a battle", "Battle", "D1")])
    monkeypatch.setenv("PALATE__LLM__MAX_CALLS", "0")
    code, _, err = palate("fresh", "-p", project, "--json")
    assert (code, "budget" in err) == (1, True)
    monkeypatch.delenv("PALATE__LLM__MAX_CALLS")
    assert fresh(palate, project)[1]["labels"] == 1


@pytest.mark.slow
def test_drift_and_a_creator_that_changed_raise_an_alarm(palate, project, monkeypatch):  # noqa: F811
    moods = project / "attributes" / "moods.yaml"
    moods.write_text(moods.read_text().replace("Is this calm?", "Is this gentle?"))
    grow(project, [])
    from palate.cli.options import open_run

    with open_run(project, quiet=True) as run:
        assert run.distil.detail["students"] == 1
    code, steady = fresh(palate, project, "--trickle", 30, "--by", "director")
    assert (code, steady["alarms"], steady["drift"][0]["alarms"]) == (0, 0, [])
    new = [(f"n{k}", f"New {k}", "a meadow", "Meadow", f"D{1 + 2 * (k % 2)}") for k in range(16)]
    grow(project, new)  # D1 and D3 made films of battles alone
    code, found = fresh(palate, project, "--by", "director")
    assert code == 1
    assert {jump["group"] for jump in found["jumps"]} == {"D1", "D3"}
    monkeypatch.setattr(FilmEngine, "drifted", True)
    code, found = fresh(palate, project, "--trickle", 30)
    assert code == 1
    assert found["drift"][0]["alarms"]
    assert found["calls"] == 0  # what was known was not asked again; the trickle goes past the ledger


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--by", "colour"), ["no such column", "colour", "title"]),
        (("--trickle", "3"), ["no student", "palate distill"]),
        (("--by", "title", "--since", "yesterday"), ["no date", "yesterday"]),
    ],
)
def test_what_is_wrong_is_named(palate, project, options, words):  # noqa: F811
    code, _, err = palate("fresh", "-p", project, *options)
    assert code == 2
    for word in words:
        assert word in err
