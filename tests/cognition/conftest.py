"""The tiny language model, read once for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from riwoa.cognition.protocol import ModelSpec

if TYPE_CHECKING:
    from riwoa.cognition.writer import ModelWriter


@pytest.fixture(scope="module")
def loaded(tiny_llama: ModelSpec) -> ModelWriter:
    from riwoa.cognition.writer import ModelWriter  # torch, which most tests of this room do without

    return ModelWriter.load(tiny_llama)


@pytest.fixture
def model(loaded: ModelWriter) -> Iterator[ModelWriter]:
    """As it was read, whatever the test before did with it."""
    yield loaded
    loaded.use_adapter(None)
    loaded.piece = 8
