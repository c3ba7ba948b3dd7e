"""docs/annotation.md: every command of the guide, in order, on a small project made from the bundled films."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MAY_FIND = {"palate annotate lint", "palate annotate attack", "palate annotate fresh"}  # exit 1 is a finding
SETTINGS = {"annotate": {"items": 10}, "recorded": {"folder": "answers", "model": "claude"}}


def commands():
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "docs" / "annotation.md").read_text(), re.M | re.S)
    return [line for kind, block in blocks if not kind for line in block.splitlines() if line.startswith("palate ")]


@pytest.fixture(scope="module")
def project(tmp_path_factory, sample):
    """The 150 most-rated of the tagged films and two attributes; the recorded model plays the person who labels."""
    from palate.data.movielens import read_movielens, read_movielens_tags
    from palate.knowledge.golden_set import golden_split

    folder = tmp_path_factory.mktemp("guide") / "films"
    for name in ("attributes", "golden", "answers"):
        (folder / name).mkdir(parents=True)
    films, tags = read_movielens(sample), read_movielens_tags(sample)
    tagged = pl.Series(films.item_ids).is_in(tags["item_id"].unique().to_list()).to_numpy()
    chosen = [films.item_ids[num] for num in (films.item_counts * tagged).argsort()[::-1][:150]]
    films.items.filter(pl.col("item_id").is_in(chosen)).write_parquet(folder / "items.parquet")
    films.events.filter(pl.col("item_id").is_in(chosen)).drop("item_num", "user_num").write_parquet(
        folder / "events.parquet"
    )
    for name in ("items.jsonl", "users.jsonl", "README.md"):
        lines = (sample / "answers" / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if name != "items.jsonl" or line.split('"')[3] in chosen]
        (folder / "answers" / name).write_text("".join(kept))
    listed = yaml.safe_load((ROOT / "examples" / "movielens" / "attributes" / "moods.yaml").read_text())
    two = [entry for entry in listed if entry["name"] in ("quirky", "funny")]
    (folder / "attributes" / "moods.yaml").write_text(yaml.safe_dump(two, sort_keys=False))
    with (folder / "golden" / "reader.csv").open("w") as file:
        file.write("item_id,attribute,rater,label\n")
        both = 0
        for line in (folder / "answers" / "items.jsonl").read_text().splitlines():
            row = json.loads(line)
            labels = {name: int(row["scores"][name] >= 4) for name in ("funny", "quirky")}
            both += labels["funny"] != labels["quirky"]
            if labels["funny"] == labels["quirky"] or both > 24:  # these alone can be attacked, and each costs calls
                del labels["quirky"]
            file.writelines(f"{row['item_id']},{name},reader,{label}\n" for name, label in labels.items())
    golden_split(folder / "golden", salt="guide")
    data = {"items": "items.parquet", "events": "events.parquet"}
    (folder / "palate.yaml").write_text(yaml.safe_dump({"data": data, **SETTINGS}))
    (folder / "proposals.yaml").write_text("- question: Would people laugh at this film?\n  why: plainer words\n")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_command_of_the_guide_works(project, palate, monkeypatch):
    monkeypatch.chdir(project)
    run = commands()
    assert len(run) >= 12
    for command in run:
        code, out, err = palate(*command.split()[1:])
        allowed = (0, 1) if any(command.startswith(start) for start in MAY_FIND) else (0,)
        assert code in allowed, f"{command}\n{out[-2000:]}\n{err[-2000:]}"
        assert out.strip(), command
    reads = (project / "golden" / "held-out-reads.jsonl").read_text()
    assert "palate golden" in reads
