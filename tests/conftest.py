"""Fixtures that several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def sample() -> Path:
    """The bundled MovieLens folder."""
    return ROOT / "data" / "ml-latest-small"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The richer development data; a checkout without it skips."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data sets are not in this checkout")
    return folder
