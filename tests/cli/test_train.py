import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from palate.cli.main import app


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `data` of people who go round in circles, and the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    pl.DataFrame({"item_id": [f"i{i}" for i in range(30)]}).write_csv(tmp_path / "data" / "items.csv")
    rows = [(f"u{u}", f"i{(7 * u + k) % 30}", 1_600_000_000 + 977 * k + u) for u in range(40) for k in range(20)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    table.write_csv(tmp_path / "data" / "events.csv")
    return tmp_path


def palate(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_trains_on_a_folder_and_reads_validation_only(here: Path) -> None:
    found = palate("train", "markov", "--data", "data", "--set", "window=3")
    assert found["params"] == {"window": 3}
    assert found["validation NDCG@10"] == 1.0  # in a circle the last item says all
    assert not [name for name in found if "test" in name]


def test_a_search_goes_on_where_it_was_stopped_and_writes_what_it_found(here: Path) -> None:
    first = palate("train", "popularity", "--data", "data", "--tune", "--trials", "2")
    assert first["trials"] == 2
    (kept,) = (here / ".palate" / "tuning").rglob("*.jsonl")
    with kept.open("ab") as file:
        file.write(b'{"params": {"half_li')  # a kill in the middle of a line
    second = palate("train", "popularity", "--data", "data", "--tune", "--trials", "3", "--out", "found.yaml")
    assert second["trials"] == 3
    lines = kept.read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 3
    assert yaml.safe_load((here / "found.yaml").read_text()) == {"popularity": second["params"]}
    assert float(str(second["validation NDCG@10"])) >= float(str(second["of the defaults"]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no such model"),
        (["markov", "--set", "window"], "NAME=VALUE"),
        (["markov", "--set", "window=-1"], "do not fit"),
    ],
)
def test_bad_input_is_named(here: Path, arguments: list[str], said: str) -> None:
    from palate.errors import InputError

    with pytest.raises(InputError, match=said):
        CliRunner().invoke(app, ["train", *arguments, "--data", "data"], catch_exceptions=False)


def test_a_file_that_is_no_mapping_is_left_alone(here: Path) -> None:
    from palate.errors import InputError

    (here / "found.yaml").write_text("- a list\n")
    with pytest.raises(InputError, match="no mapping"):
        CliRunner().invoke(
            app, ["train", "popularity", "--data", "data", "--out", "found.yaml"], catch_exceptions=False
        )
    assert (here / "found.yaml").read_text() == "- a list\n"
