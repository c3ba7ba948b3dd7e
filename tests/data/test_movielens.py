from __future__ import annotations

import polars as pl
import pytest

from palate.data.check import check_files
from palate.data.movielens import read_movielens, read_movielens_tags
from palate.data.readers import read_dataset
from palate.errors import InputError


def test_the_sample_is_whole_and_without_findings(sample):
    data = read_movielens(sample)
    assert (data.n_items, data.n_users, data.events.height) == (9742, 610, 100836)
    assert check_files(sample / "movies.csv", sample / "ratings.csv").findings == []
    assert data.events["event_type"].unique().to_list() == ["rating"]
    words = dict(data.items.select("title", "text").iter_rows())
    assert words["Matrix, The (1999)"] == "The Matrix, a film from 1999. Genres: Action, Sci-Fi, Thriller."
    assert words["Hyena Road"] == "Hyena Road, a film."
    assert all(path.stat().st_size < 3_000_000 for path in sample.rglob("*"))


def test_the_sample_equals_the_fuller_copy(sample, shared_data):
    folder = shared_data / "movielens-small"
    whole = read_dataset(folder / "items.parquet", folder / "interactions.parquet")
    data = read_movielens(sample)
    columns = ["user_id", "item_id", "timestamp", "value", "user_num", "item_num"]
    assert data.events.select(columns).equals(whole.events.select(columns))
    assert data.items.select("item_id", "title", "categories").equals(
        whole.items.select("item_id", "title", "categories")
    )


def test_tags_stay_out_of_the_text(sample):
    tags = read_movielens_tags(sample)
    assert tags.columns == ["user_id", "item_id", "tag", "timestamp"] and tags.height == 2600
    text = read_movielens(sample).items.select("item_id", "text")
    told = tags.filter(pl.col("tag") == "atmospheric").join(text, on="item_id")
    assert told.height > 0 and not told["text"].str.contains("atmospheric").any()


def test_a_folder_without_its_files(tmp_path):
    with pytest.raises(InputError, match="2 errors") as caught:
        read_movielens(tmp_path)
    assert "movies.csv" in str(caught.value) and "ratings.csv" in str(caught.value)
    with pytest.raises(InputError, match="there is no file"):
        read_movielens_tags(tmp_path)


def test_tags_without_their_column(tmp_path):
    (tmp_path / "tags.csv").write_text("userId,movieId,timestamp\n1,2,1589716801\n")
    with pytest.raises(InputError, match="column `tag` is missing"):
        read_movielens_tags(tmp_path)
