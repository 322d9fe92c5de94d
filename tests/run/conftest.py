"""What whole runs in tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent.parent / "support"


@pytest.fixture(scope="module")
def landscape_oracles() -> Iterator[None]:
    """Workers may evaluate a made-up landscape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT))
        patch.setenv("RIWOA_TEST_ORACLES", "1")
        yield
