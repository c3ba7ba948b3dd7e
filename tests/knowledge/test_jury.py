import polars as pl
import pytest

from palate.errors import InputError
from palate.knowledge.jury import disagreement, empanel, jury
from palate.knowledge.store import in_schema


def labels(model, *rows):
    table = [
        {
            "entity": e,
            "name": "funny",
            "value": v,
            "text": t,
            "confidence": c,
            "model": model,
            "version": "v",
            "evidence": w,
        }
        for e, v, t, c, w in rows
    ]
    return pl.DataFrame(table, schema_overrides={"evidence": pl.String})


A = labels("a", ("1", 0.9, "Yes", 0.9, "ha"), ("2", 0.6, "Yes", 0.6, None))
B = labels("a", ("1", 0.8, "Yes", 0.8, None), ("2", 0.1, "No", 0.9, "boo"))
C = labels("c", ("1", 0.4, "No", 0.6, "hm"))


def test_vote_mean_and_agreement_by_hand():
    rows = jury(empanel([A, B, C])).sort("entity")
    in_schema("label", rows)
    assert rows["text"].to_list() == ["Yes", "No"]  # 2: one each, the surer one wins
    assert rows["value"].to_list() == pytest.approx([0.7, 0.35])
    assert rows["confidence"].to_list() == pytest.approx([2 / 3, 1 / 3])  # c said nothing of 2: it agrees with nobody
    assert rows["evidence"].to_list() == ["ha", "boo"]
    assert rows["model"].unique().to_list() == ["jury of 3: a#1, a#2, c"]
    assert rows["version"].to_list() == ["v", "v"]


def test_disagreement_by_hand():
    rows = disagreement(empanel([A, B, C]))
    assert rows["entity"].to_list() == ["2", "1"]
    assert rows["against"].to_list() == pytest.approx([0.5, 1 / 3])
    assert rows["spread"].to_list() == pytest.approx([0.5, 0.5])


def test_the_order_of_jurors_does_not_matter_but_for_names():
    one, other = (jury(empanel(tables)).sort("entity").drop("model", "prompt_hash") for tables in ([A, C], [C, A]))
    assert one.equals(other)


def test_one_juror_is_no_jury():
    for tables in ([A], [A, C.clear()], []):
        with pytest.raises(InputError, match="at least two"):
            jury(empanel(tables))


def test_nobody_votes_twice():
    with pytest.raises(InputError, match="votes twice") as caught:
        jury(pl.concat([A, A, C]))
    assert "1, funny, a" in str(caught.value)
