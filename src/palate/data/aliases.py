"""The names of the same columns in RecBole, Gorse, MovieLens, Amazon and Microsoft's recommenders."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_USER = ("user_id", "user", "uid", "reviewer_id", "customer_id", "visitor_id")
_ITEM = ("item_id", "item", "movie_id", "iid", "product_id", "article_id", "news_id", "asin", "parent_asin")
_TIME = ("timestamp", "time", "ts", "datetime", "date", "event_time", "unix_review_time", "unix_timestamp")

# Palate's column first, then its aliases, the first one found wins. Case, spaces and underscores do not count.
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "events": {
        "user_id": _USER,
        "item_id": _ITEM,
        "timestamp": _TIME,
        "event_type": ("event_type", "event", "feedback_type", "action", "interaction_type", "behavior", "type"),
        "value": ("value", "rating", "score", "stars", "overall", "preference", "label"),
        "session_id": ("session_id", "session"),
    },
    "items": {
        "item_id": (*_ITEM, "id"),
        "title": ("title", "movie_title", "name", "item_name", "product_title", "product_name", "headline"),
        "text": ("text", "description", "overview", "plot", "abstract", "summary", "comment", "content", "body"),
        "categories": ("categories", "genres", "genre", "category", "class"),
        "media": ("media", "images", "image", "videos", "video", "image_path", "video_path", "path", "poster"),
        "created_at": ("created_at", "timestamp", "time_stamp"),
    },
    "users": {"user_id": (*_USER, "id")},
}
REQUIRED = {"events": ("user_id", "item_id", "timestamp"), "items": ("item_id",), "users": ("user_id",)}


def matched(columns: Sequence[str], kind: str) -> dict[str, str]:
    """The column of a file (`events`, `items` or `users`) that stands for each of Palate's, where there is one."""
    squashed: dict[str, str] = {}
    for column in columns:
        squashed.setdefault(_squash(column), column)
    found: dict[str, str] = {}
    for name, aliases in ALIASES[kind].items():
        hits = [squashed[_squash(alias)] for alias in aliases if _squash(alias) in squashed]
        free = [hit for hit in hits if hit not in found.values()]
        if name in columns:
            found[name] = name
        elif free:
            found[name] = free[0]
    return found


def did_you_mean(missing: str, columns: Sequence[str], kind: str) -> str:
    """What to do about a missing column: the likeliest misspelling, or the names that would be understood."""
    free = [c for c in columns if c not in matched(columns, kind).values()]
    by_key = {_squash(c): c for c in free}
    for alias in ALIASES[kind][missing]:
        near = difflib.get_close_matches(_squash(alias), by_key, n=1, cutoff=0.7)
        if near:
            return f"did you mean `{by_key[near[0]]}`? Rename it to `{missing}`"
    accepted = ", ".join(ALIASES[kind][missing])
    return f"name one of the columns {', '.join(free) or '(none left)'} `{missing}`; understood are {accepted}"


def _squash(name: str) -> str:
    return "".join(ch for ch in name.lower() if ch.isalnum())
