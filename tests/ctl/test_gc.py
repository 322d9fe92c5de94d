"""``riwoactl gc``: what may go is listed, and goes where that is asked for; what a run needs stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from riwoa.ctl import main
from riwoa.files.lock import Lock
from riwoa.files.staging import MARKER
from riwoa_storage.records import AdapterRecord
from riwoa_storage.writer import JournalWriter

from .support import held_lock, individual, write_journal

_DEAD = 2**22 + 1  # above the largest process id of Linux
_NEEDED = ("journal.db", "latency_lut.json", "supernet.safetensors", "export", "status.json")


def _adapter(state: Path, weights: bytes, *, finished: bool) -> Path:
    """A run with an adapter in the journal, and a copy of that."""

    async def write() -> str:
        async with await JournalWriter.open(state / "journal.db") as journal:
            run_id = await journal.begin_run({"seed": 0}, {})
            sha256 = hashlib.sha256(weights).hexdigest()
            await journal.put_adapter(
                AdapterRecord(
                    adapter_id=0, run_id=run_id, generation=1, parent_id=None, sha256=sha256, weights=weights,
                    status="current", training={},
                )
            )  # fmt: skip
            if finished:
                await journal.finish_run(run_id)
            return sha256

    copy = state / "cache" / "adapters" / f"{asyncio.run(write())}.safetensors"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(weights)
    return copy


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))
    state = tmp_path / "state"
    state.mkdir()
    write_journal(state / "journal.db", [(individual(0, ("a", 0.5, 1.0)),)], finished=True)
    for name in _NEEDED:
        (state / name).mkdir() if name == "export" else (state / name).touch()
    yield state
    assert [name for name in _NEEDED if not (state / name).exists()] == []


def gc(capsys: pytest.CaptureFixture[str], state: Path, *words: str) -> dict[str, Any]:
    assert main(["gc", "--json", "--state", str(state), *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def litter(state: Path) -> list[Path]:
    """What killed processes and time leave behind."""
    left = [
        state / ".export.0123abcd.riwoa" / MARKER,
        state / ".supernet.safetensors.0123abcd.tmp",
        state / "supernet.safetensors.training.pt",
        state / f".copy.db.{_DEAD}.part",
        state / "backups" / f".riwoa-20260101-120000.db.{_DEAD}.part",
        *(state / "backups" / f"riwoa-2026010{day}-120000.db" for day in (1, 2)),
        state / "cache" / "adapters" / "training.safetensors",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (0, 0))
    (state / ".export.0123abcd.riwoa" / "new").mkdir()
    (state / ".export.0123abcd.riwoa" / "new" / "model.onnx").write_bytes(bytes(2_000_000))
    return [left[0].parent, *left[1:]]


def test_what_was_left_behind_is_listed_with_sizes_and_goes_only_where_that_is_asked_for(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state / "backups").mkdir()
    kept = [state / "backups" / name for name in ("riwoa-20260103-120000.db", "riwoa-20260104-120000.db", "my.db")]
    for file in kept:
        file.touch()
    left = litter(state)
    found = gc(capsys, state, "--keep", "2")
    assert ({row["path"] for row in found["leftovers"]}, found["deleted"]) == ({*map(str, left)}, False)
    assert found["bytes"] == 2_000_000
    assert all(file.exists() for file in left)
    assert main(["gc", "--keep", "2", "--state", str(state)]) == 0
    out = capsys.readouterr().out
    assert "2.0 MB  .export.0123abcd.riwoa: an export that was killed" in out
    assert " ".join(out.split()).endswith("nothing is deleted yet: `riwoactl gc --yes --keep 2` deletes it")
    assert gc(capsys, state, "--keep", "2", "--yes")["deleted"]
    assert [file for file in left if file.exists()] == []
    assert all(file.exists() for file in kept)
    assert main(["gc", "--state", str(state)]) == 0
    assert " ".join(capsys.readouterr().out.split()) == f"nothing may go of {state}"


def test_beside_a_daemon_it_lists_and_deletes_nothing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = litter(state)
    with held_lock(state):
        assert len(gc(capsys, state, "--keep", "1")["leftovers"]) == len(left) - 1
        assert main(["gc", "--yes", "--state", str(state)]) == 75
        assert "`riwoactl stop` ends it" in capsys.readouterr().err
    assert all(file.exists() for file in left)


def test_what_others_are_at_or_what_is_not_ours_is_left_alone(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [
        state / ".export.0123abcd.riwoa" / "of another program",  # without the marker
        state / f".copy.db.{os.getpid()}.part",  # its writer lives
        state / f".notes.{_DEAD}.part",
        state / ".latency_lut.json.0123abcd.tmp",  # written a moment ago
        state / "cache" / "adapters" / f"{'0' * 64}.safetensors",  # not what its name says
        state / "finetuned.safetensors.training.pt",  # nothing came of it yet: it goes on
    ]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine, and none of a journal's header: " + "x" * 80)
    export = state / ".export-3-1.89abcdef.riwoa"
    export.mkdir()
    (state / "supernet.safetensors.training.pt").touch()  # a training of a moment ago, after the file
    os.utime(state / "supernet.safetensors.training.pt", (time.time() + 60,) * 2)
    with Lock(export / MARKER) as lock:
        assert lock.take()
        assert gc(capsys, state, "--yes")["leftovers"] == []
    assert all(file.exists() for file in others)


def test_of_copies_of_adapters_those_of_a_run_that_goes_on_stay(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, under_way = _adapter(state, b"first", finished=True), _adapter(state, b"second", finished=False)
    assert [row["path"] for row in gc(capsys, state)["leftovers"]] == [str(ended)]
    assert [row["path"] for row in gc(capsys, state, "--caches")["leftovers"]] == [
        str(p) for p in sorted((ended, under_way))
    ]
    os.utime(state / "journal.db", ns=(0, 0))
    gc(capsys, state, "--yes")
    assert (ended.exists(), under_way.exists()) == (False, True)


def test_decoded_pictures_go_with_the_caches_alone(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, folder = "ab" * 32, tmp_path / "user cache" / "riwoa" / "pictures"
    folder.mkdir(parents=True)
    files = [folder / f"{key}.json", folder / f"{key}.24.rgb", folder / f"{key}.32.rgb"]
    for file in files:
        file.write_bytes(bytes(500))
    assert gc(capsys, state)["leftovers"] == []
    (row,) = gc(capsys, state, "--caches", "--yes")["leftovers"]
    assert row["bytes"] == 1_500
    assert not any(file.exists() for file in files)


def test_without_a_run_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["gc"], ["gc", "--yes"]):
        assert main([*words, "--state", str(tmp_path / "nowhere")]) == 66
        assert "no journal" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
