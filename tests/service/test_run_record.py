from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.config.schema import as_json
from riwoa.errors import ConfigError
from riwoa.service.run_record import find_unfinished, settle_new_run
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


async def test_a_run_goes_on_with_the_defaults_of_the_version_that_began_it(tmp_path: Path) -> None:
    file, journal = tmp_path / "riwoa.toml", tmp_path / "journal.db"
    file.write_text("")
    old = as_json(load(None, ["run.generations=40", "cognition.lag=1", "cognition.train_lag=6"], {}).config)
    del old["search"]["riwoa"]["joint"]
    writer = await JournalWriter.open(journal)
    await writer.begin_run({}, old)
    await writer.close()

    now = load(file, [], {})
    reloader = Reloader(now, [])
    assert find_unfinished(journal, now, reloader) is not None
    assert reloader.take() is None  # nothing is to change
    file.write_text("[run]\nseed = 0\n")
    reloader.reload()  # nor where the file is edited
    assert reloader.take() is None
    kept = reloader.config
    assert (kept.run.generations, kept.cognition.lag, kept.cognition.train_lag) == (40, 1, 6)
    assert not kept.search.riwoa.joint
    file.write_text("[run]\ngenerations = 60\n")
    reloader.reload()
    assert reloader.take() is not None
    assert reloader.config.run.generations == 60

    with pytest.raises(ConfigError, match=r"cognition\.lag \(1 -> 4\)"):  # which somebody asks for
        find_unfinished(journal, load(file, ["cognition.lag=4"], {}), Reloader(now, []))


@pytest.mark.parametrize(("asked", "together"), [([], 7), (["search.offspring=5"], 5)])
async def test_a_new_run_asks_as_many_at_once_as_it_has_workers_and_goes_on_so_with_fewer(
    tmp_path: Path, asked: list[str], together: int
) -> None:
    file, journal = tmp_path / "riwoa.toml", tmp_path / "journal.db"
    file.write_text("")
    begun = load(file, ["oracle.workers=7", *asked], {})
    reloader = Reloader(begun, ["oracle.workers=7", *asked])
    settle_new_run(begun, reloader)
    reloader.reload()
    assert reloader.take() is None  # the file asks for nothing else
    assert reloader.config.search.offspring == together
    writer = await JournalWriter.open(journal)
    await writer.begin_run({}, as_json(reloader.config))
    await writer.close()

    now = load(file, ["oracle.workers=2", *asked], {})
    later = Reloader(now, ["oracle.workers=2", *asked])
    assert find_unfinished(journal, now, later) is not None
    later.reload()
    assert later.take() is None
    assert later.config.search.offspring == together


def test_with_few_workers_a_new_run_asks_four_at_once() -> None:
    loaded = load(None, ["oracle.workers=2"], {})
    reloader = Reloader(loaded, [])
    settle_new_run(loaded, reloader)
    assert reloader.config.search.offspring == 4
