import polars as pl
import pytest

from palate.data.folder import read_folder, read_labels
from palate.errors import InputError


def test_items_events_and_labels_of_a_folder(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\n1,One\n2,Two\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\na,1,1600000000\n")
    pl.DataFrame({"item_id": ["1"], "label": [" Funny "]}).write_parquet(tmp_path / "labels.parquet")
    assert read_folder(tmp_path).n_items == 2
    labels = read_labels(tmp_path)
    assert labels.rows() == [("1", "funny", "labels", None)]


def test_a_movielens_folder(sample):
    assert read_folder(sample).n_items == 9742
    assert {"funny", "surreal"} <= set(read_labels(sample)["label"])


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="no file of items"):
        read_folder(tmp_path)
    (tmp_path / "items.csv").write_text("item_id,title\n1,One\n")
    with pytest.raises(InputError, match=r"no file of events(.|\n)*interactions"):
        read_folder(tmp_path)
    assert read_labels(tmp_path) is None
    (tmp_path / "labels.csv").write_text("item,label\n1,x\n")
    with pytest.raises(InputError, match="column item_id"):
        read_labels(tmp_path)
