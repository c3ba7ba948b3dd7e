import numpy as np
import polars as pl
from profile_data import FACTORS, Echo, Letters, log

from palate.knowledge.profile_vectors import described, same_space, vector_rows
from palate.knowledge.profiles import (
    Interview,
    ProfileConfig,
    seen_first,
    seen_windows,
    streamed_profiles,
    user_profiles,
)
from palate.knowledge.store import in_schema
from palate.knowledge.tables import SCHEMA, Knowledge


def test_closed_answers_are_log_odds_over_their_factor():
    data = log(n_users=3)
    rows = user_profiles(data, seen_first(data), Interview(FACTORS, Echo(), ProfileConfig(answer="closed")))
    vectors = vector_rows(rows, Letters())
    assert vectors.height == 3
    found = vectors["vector"][0].to_numpy()
    mood, theme = (np.log(rows["vector"][k].to_numpy()) for k in (0, 1))
    np.testing.assert_allclose(found, [*(mood - mood.mean()), *(theme - theme.mean())], atol=1e-5)
    assert vectors["as_of"].to_list() == rows["as_of"].unique(maintain_order=True).to_list()


def test_notes_go_through_the_encoder_a_vector_for_each_version():
    data = log(n_users=2, n_events=8)
    windows = [seen_windows(data, [0, 0], [4, 4]), seen_windows(data, [4, 4], [8, 8])]
    rows = streamed_profiles(data, windows, Interview(FACTORS, Echo(), ProfileConfig()))
    vectors = vector_rows(rows, Letters())
    assert vectors["entity"].to_list() == ["u0", "u1", "u0", "u1"]
    assert vectors["model"].unique().to_list() == ["echo-1 + letters"]
    np.testing.assert_allclose(vectors["vector"][2].to_numpy(), Letters().encode([rows["text"][2]])[0], rtol=1e-6)
    assert vector_rows(pl.DataFrame(schema=SCHEMA), Letters()).height == 0


def test_users_and_items_stand_in_one_space():
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((3, 10))
    users, items = ((rng.standard_normal((n, 3)) @ basis + 7).astype(np.float32) for n in (50, 80))
    items[:5] = 0
    a, b = same_space(users, items, 8)
    assert a.shape == (50, 3)  # no more axes than there are
    assert not b[:5].any()
    np.testing.assert_allclose((a.var(0) + b[5:].var(0)) / 2, 1, rtol=1e-3)
    centred = users - users.mean(0), items[5:] - items[5:].mean(0)
    again = np.linalg.lstsq(np.concatenate(centred), np.concatenate([a, b[5:]]), rcond=None)[0]
    for side, made in zip(centred, (a, b[5:]), strict=True):
        np.testing.assert_allclose(side @ again, made, atol=1e-3)  # one map for both
    c, d = same_space(users, items[:, :4], 2)
    assert c.shape == (50, 2)
    assert d.shape == (80, 2)
    assert same_space(np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32), 2)[0].shape == (3, 0)


def test_recorded_answers_become_one_note_an_item():
    label = pl.DataFrame({"entity": ["i1", "i1"], "name": ["tense", "funny"], "value": [0.9, 0.1], "model": "m"})
    tag = pl.DataFrame({"entity": ["i1", "i2"], "name": "tag", "text": ["heist", "sea"], "model": "m"})
    fact = pl.DataFrame({"entity": ["i1"], "name": "facts", "text": ["A robbery."], "model": "m"})
    tables = {"label": label, "tag": tag, "fact": fact}
    found = described(Knowledge({kind: in_schema(kind, rows) for kind, rows in tables.items()}))
    assert dict(found.select("entity", "text").iter_rows()) == {"i1": "A robbery.; heist; tense", "i2": "sea"}
    assert described(Knowledge()).height == 0
