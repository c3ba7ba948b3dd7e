from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.data.check import check_files
from palate.data.dataset import TIMESTAMP
from palate.data.readers import read_dataset
from palate.errors import InputError

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12
).filter(lambda s: s == s.strip() and s.lower() not in ("nan", "null", "none", "n/a"))
IDS = st.lists(WORDS, min_size=1, max_size=6, unique=True)
MOMENT = datetime(2020, 5, 17, 12, 0, 1, tzinfo=UTC)


def write(frame: pl.DataFrame, path: Path) -> Path:
    flat = [pl.col(c).list.join("|") for c, t in frame.schema.items() if t == pl.List(pl.String)]
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=path.stem == "x") for row in frame.to_dicts()), "utf-8")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(frame.with_columns(flat).write_csv().encode()))
    else:
        frame.with_columns(flat).write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    IDS, IDS, st.data(), st.sampled_from([".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz"]), st.sampled_from([1, 1000])
)
def test_every_format_round_trips(tmp_path, items, users, data, suffix, unit):
    picks = data.draw(
        st.lists(
            st.tuples(st.sampled_from(users), st.sampled_from(items), st.integers(10**9, 2 * 10**9), st.integers(0, 9)),
            min_size=1,
            max_size=8,
        )
    )
    catalogue = pl.DataFrame({"item_id": items, "title": [f"t {i}" for i in items], "text": [f"{i}!" for i in items]})
    log = pl.DataFrame(
        {
            "user_id": [p[0] for p in picks],
            "item_id": [p[1] for p in picks],
            "timestamp": [p[2] * unit for p in picks],
            "value": [p[3] / 2 for p in picks],
        }
    )
    got = read_dataset(write(catalogue, tmp_path / f"i{suffix}"), write(log, tmp_path / f"e{suffix}"))
    assert got.items["item_id"].to_list() == items
    assert got.items["title"].to_list() == catalogue["title"].to_list()
    assert got.items["text"].to_list() == catalogue["text"].to_list()
    wanted = sorted(picks, key=lambda p: p[2])
    seconds = got.events["timestamp"].dt.epoch("s").to_list()
    ids = got.events.select("user_id", "item_id")
    rows = list(zip(*ids.to_dict(as_series=False).values(), seconds, got.events["value"] * 2, strict=True))
    assert rows == wanted
    assert got.events["timestamp"].dtype == TIMESTAMP


def small(tmp_path: Path, events: str, items: str = "item_id,title\n1,A\n2,B\n") -> pl.DataFrame:
    (tmp_path / "i.csv").write_text(items, "utf-8")
    (tmp_path / "e.csv").write_text(events, "utf-8")
    return read_dataset(tmp_path / "i.csv", tmp_path / "e.csv").events


@pytest.mark.parametrize(
    "written",
    [
        "1589716801", "1589716801.0", "1589716801000", "1589716801000000", "1589716801000000000",
        "2020-05-17T12:00:01Z", "2020-05-17T12:00:01.000+00:00", "2020-05-17 14:00:01+02:00",
        "2020-05-17 14:00:01+0200", "2020-05-17 12:00:01", "2020-05-17 12:00:01 +0000 UTC",
    ],
)  # fmt: skip
def test_times_as_people_write_them(tmp_path, written):
    assert small(tmp_path, f"user_id,item_id,timestamp\nu,1,{written}\n")["timestamp"].to_list() == [MOMENT]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_datetime_columns(tmp_path, zone, unit):
    aware = pl.Series([MOMENT]).dt.convert_time_zone(zone or "UTC").cast(pl.Datetime(unit, zone or "UTC"))
    times = aware if zone else aware.dt.replace_time_zone(None)
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["1"], "timestamp": times})
    got = read_dataset(
        write(pl.DataFrame({"item_id": [1], "title": "A"}), tmp_path / "i.parquet"), write(log, tmp_path / "e.parquet")
    )
    assert got.events["timestamp"].to_list() == [MOMENT]


def test_small_numbers_are_places_in_a_sequence(tmp_path):
    times = small(tmp_path, "user_id,item_id,timestamp\nu,1,0\nu,2,1\n")["timestamp"].dt.epoch("us").to_list()
    assert times == [0, 1_000_000]


def test_one_outlier_does_not_change_the_unit(tmp_path):
    rows = "user_id,item_id,timestamp\nu,1,1589716801\nu,2,1589716802\nu,1,9999999999999999\n"
    with pytest.raises(InputError, match="a time cannot be understood: 9999999999999999"):
        small(tmp_path, rows)


def test_the_names_of_other_tools(tmp_path):
    microsoft = small(tmp_path, "userID,itemID,rating,timestamp\nu,1,4,1589716801\n")
    gorse = small(
        tmp_path,
        "feedback_type,user_id,item_id,time_stamp\nread,u,1,2020-05-17T12:00:01Z\n",
    )
    ours = small(tmp_path, "user_id,item_id,timestamp,rating,event\nu,1,1589716801,3,click\n")
    assert microsoft["value"].to_list() == [4.0] and microsoft["event_type"].to_list() == ["event"]
    assert gorse["event_type"].to_list() == ["read"] and gorse["value"].to_list() == [None]
    assert ours.select("event_type", "value").row(0) == ("click", 3.0)


def test_defaults_and_further_columns(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"user": 3, "item": 7, "time": 1589716801, "position": 2}\n')
    (tmp_path / "i.csv").write_text("id;name;genres;price;code\n7;Tea;hot|green;1.5;007\n8;Mug;;2;01\n", "utf-8-sig")
    got = read_dataset(tmp_path / "i.csv", tmp_path / "e.jsonl")
    assert got.items.columns == ["item_id", "title", "text", "categories", "price", "code"]
    assert got.items.row(0) == ("7", "Tea", None, ["hot", "green"], 1.5, "007")
    assert got.items.row(1)[3] == []
    assert got.events["user_id"].to_list() == ["3"] and got.events["position"].to_list() == [2]


def test_recbole_atomic_files(tmp_path):
    (tmp_path / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\t1\t3\t1589716801\n"
    )
    (tmp_path / "x.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\tyear:float\tvec:float_seq\n"
        '1\tThe "Go\tDrama War\t1990\t0.5 1\n2\t"Stop\t\t\t\n'
    )
    (tmp_path / "x.user").write_text("user_id:token\tage:token\nu\t24\nv\t30\n")
    got = read_dataset(tmp_path / "x.item", tmp_path / "x.inter", tmp_path / "x.user")
    assert got.items["title"].to_list() == ['The "Go', '"Stop']
    assert got.items["categories"].to_list() == [["Drama", "War"], []]
    assert got.items["year"].to_list() == [1990.0, None] and got.items["vec"][0].to_list() == [0.5, 1.0]
    assert got.users.to_dict(as_series=False) == {"user_id": ["u", "v"], "age": ["24", "30"]}
    assert got.n_users == 2 and got.events["value"].to_list() == [3.0]


def test_lists_of_categories(tmp_path):
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\nu,1,1589716801\n")
    (tmp_path / "i.csv").write_text('item_id,title,categories\n1,A,"[""Home, Garden"", ""Tea""]"\n2,B,\n')
    got = read_dataset(tmp_path / "i.csv", tmp_path / "e.csv")
    assert got.items["categories"].to_list() == [["Home, Garden", "Tea"], []]


def test_ids_of_different_types_meet(tmp_path):
    items = write(pl.DataFrame({"item_id": [1.0, 2.0], "title": ["A", "B"]}), tmp_path / "i.parquet")
    log = pl.DataFrame({"user_id": [5, 5], "item_id": ["1", "2"], "timestamp": [1589716801, 1589716802]})
    assert read_dataset(items, write(log, tmp_path / "e.parquet")).events["item_num"].to_list() == [0, 1]


def test_blank_lines_and_line_breaks_in_fields(tmp_path):
    rows = 'user_id,item_id,timestamp\r\n\r\nu,1,1589716801\r\n"a\nb",2,1589716802\r\n'
    assert small(tmp_path, rows)["user_id"].to_list() == ["u", "a\nb"]


@pytest.mark.parametrize("name", ["movielens-small", "movielens-100k", "amazon-industrial", "grocery", "news-bing"])
def test_the_development_sets_are_read_whole(shared_data, name):
    folder = shared_data / name
    got = read_dataset(folder / "items.parquet", folder / "interactions.parquet")
    raw = pl.read_parquet(folder / "interactions.parquet")
    assert got.events.height == raw.height and got.n_items == pl.read_parquet(folder / "items.parquet").height
    assert got.events["value"].cast(pl.Float64).sum() == pytest.approx(raw["rating"].cast(pl.Float64).sum())


@pytest.mark.parametrize(
    ("column", "kind"), [("image", "parquet"), ("path", "csv"), ("media", "jsonl"), ("images", "jsonl")]
)
def test_media_are_lists_of_paths_however_written(tmp_path, column, kind):
    values = ["a.jpg", "b.jpg|c.mp4", None] if column != "images" else ['["a.jpg"]', '["b.jpg", "c.mp4"]', "[]"]
    items = pl.DataFrame({"item_id": ["1", "2", "3"], column: values})
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["1"], "timestamp": [1589716801]})
    got = read_dataset(write(items, tmp_path / f"i.{kind}"), write(log, tmp_path / "e.parquet"))
    assert got.items["media"].to_list() == [["a.jpg"], ["b.jpg", "c.mp4"], []]
    assert column == "media" or column not in got.items.columns


def test_lists_of_media_stay_and_what_is_no_path_is_left_aside(tmp_path):
    log = write(pl.DataFrame({"user_id": ["u"], "item_id": ["1"], "timestamp": [1589716801]}), tmp_path / "e.parquet")
    listed = write(pl.DataFrame({"item_id": ["1"], "media": [["a b.jpg", None]]}), tmp_path / "i.parquet")
    assert read_dataset(listed, log).items["media"].to_list() == [["a b.jpg"]]
    bytes_inside = pl.DataFrame({"item_id": ["1"], "image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}]})
    path = write(bytes_inside, tmp_path / "i.parquet")
    assert read_dataset(path, log).items["media"].to_list() == [[]]
    (finding,) = [f for f in check_files(path, log).findings if f.column == "image"]
    assert "paths of files" in finding.what
