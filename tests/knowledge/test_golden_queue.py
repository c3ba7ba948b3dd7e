import pytest

from palate.errors import InputError
from palate.knowledge.golden_queue import QUEUE, Pick, extend_queue, random_part, read_queue


def test_the_queue_grows_by_what_is_new(tmp_path):
    picks = [Pick(str(n), "unsure", attribute="a") for n in range(3)]
    assert extend_queue(tmp_path, picks[:2]) == 2
    assert extend_queue(tmp_path, [*picks, Pick("0", "unsure", attribute="b"), Pick("9", "random", 0.5)]) == 3
    kept = read_queue(tmp_path)
    assert [pick.item_id for pick in kept] == ["0", "1", "2", "0", "9"]
    assert random_part(tmp_path) == {"9"}
    assert [path.name for path in tmp_path.iterdir()] == [QUEUE]


def test_a_damaged_queue_is_named_and_left(tmp_path):
    (tmp_path / QUEUE).write_text('{"item_id": "1", "why": "x"}\n{"item')
    with pytest.raises(InputError, match=r"queue.jsonl, line 2(.|\n)*Remove it"):
        extend_queue(tmp_path, [])
    assert (tmp_path / QUEUE).read_text().endswith('{"item')
