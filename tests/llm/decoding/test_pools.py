from pathlib import Path

import pytest

from palate.errors import InputError
from palate.llm.decoding.pools import DecodingConfig, Pools
from palate.testing import ask_user


def group(request) -> str:
    return request.entity.split("-")[0]


def test_each_group_has_a_pool_of_its_own() -> None:
    pools = Pools(DecodingConfig(pool="grouped"), group_of=group)
    comedy, drama = ask_user("q", entity="comedy-1"), ask_user("q", entity="drama-1")
    pools.add([comedy, drama], [[1, 2, 3], [4, 5, 6]])
    assert pools.of(comedy).draft([9], [], 5).tokens == [1, 2, 3]
    assert pools.of(drama).draft([9], [], 5).tokens == [4, 5, 6]
    assert len(pools) == 8


def test_one_pool_for_all_and_none_at_all() -> None:
    together = Pools(DecodingConfig(pool="global"), group_of=group)
    together.add([ask_user("q", entity="a-1")], [[1, 2, 3]])
    assert together.of(ask_user("q", entity="b-1")).draft([9], [], 5).tokens == [1, 2, 3]
    none = Pools(DecodingConfig(pool="none"))
    none.add([ask_user("q")], [[1, 2, 3]])
    assert none.nbytes == 0
    assert none.of(ask_user("q")).draft([7, 8, 9, 7, 8], [], 5).tokens[:1] == [9]


def test_the_bound_is_that_of_all_pools_together() -> None:
    pools = Pools(DecodingConfig(pool="grouped", most_tokens=1000), group_of=group)
    for number in range(60):
        request = ask_user("q", entity=f"g{number % 7}-{number}")
        pools.add([request], [list(range(number, number + 40))])
        assert len(pools) <= 1000


def test_kept_and_read_again(tmp_path: Path) -> None:
    pools = Pools(DecodingConfig(pool="grouped"), "words", group)
    request = ask_user("q", entity="é/..-1", purpose="facts")
    pools.add([request], [[1, 2, 3]])
    pools.save(tmp_path / "pools")
    again = Pools(DecodingConfig(pool="grouped"), "words", group)
    again.load(tmp_path / "pools")
    assert again.of(request).draft([9], [], 5).tokens == [1, 2, 3]
    with pytest.raises(InputError, match="another tokenizer"):
        Pools(DecodingConfig(), "letters").load(tmp_path / "pools")
