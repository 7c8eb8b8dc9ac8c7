"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data, which is not part of the repository; skips where it is absent."""
    data = Path(os.environ.get("TAMIS_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        pytest.skip(f"needs the shared data: no folder {data} (TAMIS_DATA names another)")
    return data
