import numpy as np
import polars as pl

from palate.knowledge.attributes import Attribute
from palate.knowledge.calibrated import calibrated_labels

FUNNY = Attribute(name="funny", question="Is this funny?")
GRADED = Attribute(name="sad", question="How sad?", options=("Very", "Somewhat", "No"))
RARE = Attribute(name="rare", question="Is it rare?")


def test_labels_are_mapped_where_dev_allows():
    rng = np.random.default_rng(0)
    ids = [str(n) for n in range(300)]
    truth = (rng.random(300) < 0.2).astype(float)
    said = np.clip(0.6 + 0.2 * truth + rng.normal(0, 0.08, 300), 0, 1)  # far too ready to say yes
    labels = pl.concat(
        pl.DataFrame({"entity": ids, "name": name, "value": said, "text": "Yes", "confidence": said})
        for name in ("funny", "sad", "rare", "other")
    )
    dev = pl.DataFrame({"item_id": ids[:150], "attribute": "funny", "value": truth[:150]})
    mapped, reports = calibrated_labels(labels, dev, ids, [FUNNY, GRADED, RARE])
    assert mapped.height == labels.height
    funny = mapped.filter(pl.col("name") == "funny")
    unseen = funny["value"].to_numpy()[150:]
    assert ((unseen - truth[150:]) ** 2).mean() < 0.5 * ((said[150:] - truth[150:]) ** 2).mean()
    assert funny["text"].to_list() == ["Yes" if v >= 0.5 else "No" for v in funny["value"]]
    np.testing.assert_allclose(funny["confidence"], np.maximum(funny["value"], 1 - funny["value"]))
    for name in ("sad", "rare", "other"):
        assert mapped.filter(pl.col("name") == name)["value"].to_list() == said.tolist()
    assert [report["attribute"] for report in reports] == ["funny", "sad", "rare"]
    assert reports[0]["brier_change"]["high"] < 0
    assert reports[1]["note"] == "more than two options"
    assert "too few dev labels: 0 yes and 0 no" in reports[2]["note"]
