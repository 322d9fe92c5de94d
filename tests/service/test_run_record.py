from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.config.schema import as_json
from riwoa.errors import ConfigError
from riwoa.service.run_record import find_unfinished
from riwoa_storage.writer import JournalWriter
from tests.support.tiny_pictures import CLASSES, tiny_file


async def test_a_run_goes_on_with_what_was_inferred_when_it_began(tmp_path: Path) -> None:
    pictures = tiny_file(tmp_path / "a.npz")
    settings = ["oracle.supernet.checkpoint=trained", f"oracle.supernet.data={pictures}"]
    begun = load(None, settings, {})
    writer = await JournalWriter.open(tmp_path / "journal.db")
    await writer.begin_run({}, as_json(begun.config))
    await writer.close()

    with np.load(pictures) as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "class_names"}
    np.savez(pictures, **{**kept, "train_labels": kept["train_labels"] + 1})  # a class more: workers will refuse it
    now = load(None, settings, {})
    assert now.config.oracle.supernet.n_classes == CLASSES + 1
    reloader = Reloader(now, settings)
    assert find_unfinished(tmp_path / "journal.db", now, reloader) is not None
    assert reloader.config.oracle.supernet.n_classes == CLASSES

    typed = [*settings, "oracle.supernet.n_classes=4"]
    with pytest.raises(ConfigError, match="n_classes"):
        find_unfinished(tmp_path / "journal.db", load(None, typed, {}), Reloader(load(None, typed, {}), typed))
