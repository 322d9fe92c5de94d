"""What verbs write to, and what they read: nothing of the user's is replaced, and nothing blocks."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.ctl import main
from riwoa.files.ownership import deny_writing_to_others, output_file, regular_file, same_place, unwritable
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import shipped_table
from riwoa.ipc.child import child_command, child_environment
from riwoa.search.space import Gene, Space
from riwoa_storage.durable import new_file

from .support import environment, individual, write_journal

_JOB = ("validate", "cifar100", "--data", "nowhere.tar.gz", "--architecture", "a.json", "--no-controls")
_TRAIN = ("supernet", "train", "digits", "--steps", "1")
# verb -> how its output is named
VERBS: dict[str, tuple[str, ...]] = {
    "supernet train": (*_TRAIN, "--out"),
    "supernet rank": ("supernet", "rank", "--subnets", "1", "--epochs", "1", "--out"),
    "predictor train": ("predictor", "train", "--out"),
    "table import": ("table", "import", "nas-bench-201", "o.pth", "--out"),
    "lut build": (
        *("lut", "build", "--repeats", "2", "--networks", "10", "--sessions", "0", "--resolutions", "24", "--table"),
    ),
    "bench table": (
        *("bench", "table", "t.npz", "--genes", "ops", "--nominal", "--maximize", "acc", "--seeds", "1"),
        *("--budget", "20", "--strategies", "random", "--out"),
    ),
    "backup": ("backup",),
    "report": ("report", "--out"),
}
EXPORT = ("export", "--out")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a journal, a table and an official file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIWOA_STATE", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    cells = [{"a": a, "b": b} for a in range(6) for b in range(5)]
    rows = [(individual(0, (str(c), 0.5 + (c["a"] + c["b"]) / 50, 1.0), c),) for c in cells]
    space = Space("cells", (Gene("a", tuple(range(6))), Gene("b", tuple(range(5))))).to_json()
    write_journal(tmp_path / "state/journal.db", rows, oracle={"kind": "table"}, space=space)
    ops = np.array([[i, j] for i in range(5) for j in range(5)], np.uint8)
    np.savez(tmp_path / "t.npz", ops=ops, acc=ops.sum(1).astype(float))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("what", ["thesis", "journal", "directory", "pipe", "device"])
def test_what_riwoa_did_not_make_is_never_replaced(
    verb: str, what: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = place / ("out.npz" if verb == "table import" else "out")
    make: dict[str, Callable[[], Any]] = {
        "thesis": lambda: target.write_text("years of work"),
        "journal": lambda: target.write_bytes((place / "state/journal.db").read_bytes()),
        "directory": target.mkdir,
        "pipe": lambda: os.mkfifo(target),
        "device": lambda: target.symlink_to("/dev/null"),
    }
    make[what]()
    before = target.lstat()
    content = target.read_bytes() if what in ("thesis", "journal") else b""
    assert main([*VERBS[verb], str(target)]) in (64, 74)
    assert said(capsys).count("\n") == 1
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert what not in ("thesis", "journal") or target.read_bytes() == content
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("verb", ["predictor train", "bench table"])
def test_a_link_to_the_output_stays_one_and_what_was_made_before_is_replaced(verb: str, place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "link").symlink_to("elsewhere/out")
    for _ in range(2):
        assert main([*VERBS[verb], "link"]) == 0
        assert os.readlink(place / "link") == "elsewhere/out"
        assert (place / "elsewhere/out").stat().st_size > 0
    assert [p.name for p in (place / "elsewhere").iterdir()] == ["out"]


def test_writing_over_what_is_read_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "o.npz").write_bytes(b"official")
    (place / "same.npz").symlink_to("o.npz")
    assert main(["table", "import", "nas-bench-201", "o.npz", "--out", "same.npz"]) == 64
    assert "is read by this very command" in said(capsys)
    assert main(["predictor", "train", "--out", f"{place}/state/../state/journal.db"]) == 64
    assert "is read by this very command" in said(capsys)


def test_a_table_that_a_user_keeps_where_the_old_one_would_go_stays(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LatencyTable.load(shipped_table()).save(place / "state/latency_lut.json")
    (place / "state/latency_lut.previous.json").write_text("{}")
    for named in ([], ["--table", f"{place}/state/./latency_lut.json"]):  # the same table, however it is named
        assert main(["lut", "build", "--repeats", "10", "--sessions", "0", *named]) == 64
        assert "previous.json is no latency table" in said(capsys)
    assert LatencyTable.load(place / "state/latency_lut.json")


def test_an_export_leaves_what_lies_beside_it_and_in_it(place: Path) -> None:
    beside = [place / "model.old", place / "model.tmp"]
    for folder in beside:
        folder.mkdir()
        (folder / "thesis.txt").write_text("years of work")
    assert main([*EXPORT, "model"]) == 0
    (place / "model/notes.txt").write_text("mine")
    assert main([*EXPORT, "model"]) == 0
    assert {p.name for p in (place / "model").iterdir()} == {"architecture.json", "provenance.json", "notes.txt"}
    for folder in beside:
        assert (folder / "thesis.txt").read_text() == "years of work"
    (place / "link").symlink_to("model")
    assert main([*EXPORT, "link"]) == 0
    assert (place / "link").is_symlink()
    assert (place / "link/notes.txt").read_text() == "mine"


def test_an_export_into_an_empty_directory_that_was_killed_is_made_by_the_next(place: Path) -> None:
    (place / "volume").mkdir()
    command = [*child_command("riwoa.ctl"), *EXPORT, "volume"]
    killed = subprocess.run(command, env={**child_environment(1), "RIWOA_FAILPOINT": "export.filling"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert main([*EXPORT, "volume"]) == 0
    assert {p.name for p in (place / "volume").iterdir()} == {"architecture.json", "provenance.json"}
    assert not [p.name for p in place.iterdir() if p.name.endswith(".riwoa")]


def test_an_export_of_an_earlier_version_is_known_by_its_provenance(place: Path) -> None:
    assert main([*EXPORT, "old"]) == 0
    files = {p.name for p in (place / "old").iterdir()}
    assert files == {"architecture.json", "provenance.json"}  # no marker was added
    (place / "theirs").mkdir()
    (place / "theirs/provenance.json").write_text('{"of": "a painting"}')
    assert main([*EXPORT, "theirs"]) == 64
    assert (place / "theirs/provenance.json").read_text() == '{"of": "a painting"}'


def test_whatever_the_umask_nobody_else_may_write_what_is_made(place: Path) -> None:
    before = os.umask(0)
    try:
        command = [sys.executable, "-m", "riwoa.ctl", *EXPORT, "model"]
        subprocess.run(
            command, env=environment(RIWOA_STATE=str(place / "state")), check=True, stdout=subprocess.DEVNULL
        )
        made = [place / "model", *(place / "model").iterdir()]
        assert [p for p in made if p.stat().st_mode & 0o022] == []
        os.umask(0o077)  # what is stricter stays so
        deny_writing_to_others()
        assert os.umask(0) == 0o077
    finally:
        os.umask(before)


def test_a_unit_that_somebody_else_wrote_is_neither_replaced_nor_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = tmp_path / "etc/systemd/system/riwoa.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/dev/null")  # as `systemctl mask` does
    assert main(["service", "install", "--root", str(tmp_path)]) == 64
    assert "is not riwoa's; move it away" in said(capsys)
    assert main(["service", "uninstall", "--root", str(tmp_path)]) == 0
    assert os.readlink(unit) == "/dev/null"
    unit.unlink()
    assert main(["service", "install", "--root", str(tmp_path)]) == 0
    assert main(["service", "install", "--root", str(tmp_path)]) == 0
    assert main(["service", "uninstall", "--root", str(tmp_path)]) == 0
    assert not unit.exists()


# -- special files ---------------------------------------------------------------------------------------------------

READERS: dict[str, tuple[str, ...]] = {
    "table": ("bench", "table", "{}", "--genes", "ops", "--nominal", "--maximize", "acc"),
    "latency table": ("lut", "show", "--table", "{}"),
    "predictor": ("predictor", "check", "{}"),
    "journal": ("predictor", "train", "--journal", "{}", "--out", "o"),
    "verified journal": ("verify", "--db", "{}"),
    "other journal": ("verify", "--db", "state/journal.db", "--against", "{}"),
    "checkpoint": ("supernet", "check", "--checkpoint", "{}"),
    "data": ("supernet", "check", "--data", "{}"),
    "official file": ("table", "import", "nas-bench-201", "{}", "--out", "o.npz"),
    "architecture": ("validate", "cifar100", "--out", "v", "--data", "d", "--architecture", "{}"),
    "model": ("model", "pull", "{}"),
}


@pytest.mark.parametrize(
    ("reader", "special"),
    # A directory is one of the things that data may be.
    [(r, s) for r in READERS for s in ("pipe", "/dev/zero", "directory") if (r, s) != ("data", "directory")],
)
def test_a_special_file_is_refused_at_once_in_one_line(
    reader: str, special: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = place / "special"
    suffix = {"table": ".npz", "predictor": ".safetensors", "checkpoint": ".safetensors", "model": ".gguf"}
    target = target.with_suffix(suffix.get(reader, ""))
    if special == "pipe":
        os.mkfifo(target)
    elif special == "directory":
        target.mkdir()
    else:
        target.symlink_to(special)
    arguments = [part.format(target) for part in READERS[reader]]
    if special == "pipe":  # on which a process may hang, and with all that one says while it starts
        command, given = [sys.executable, "-m", "riwoa.ctl", *arguments], environment(RIWOA_STATE=str(place / "state"))
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
        code, told = done.returncode, done.stderr
    else:
        code, told = main(arguments), capfd.readouterr().err
    assert code in (64, 65, 66, 72), told
    assert told.count("\n") == 1
    assert "bug" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize("file", ["status.json", "lock"])
def test_a_pipe_among_the_states_files_blocks_no_status(file: str, place: Path) -> None:
    (place / "state" / file).unlink(missing_ok=True)
    os.mkfifo(place / "state" / file)
    command = [sys.executable, "-m", "riwoa.ctl", "status", "--json", "--state", str(place / "state")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert json.loads(done.stdout)["source"] == "journal"


# -- the functions themselves ----------------------------------------------------------------------------------------


def test_a_new_file_never_takes_a_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["aa", "aa", "bb"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(names))
    first = new_file(tmp_path / "f")
    first.write_text("kept")
    assert new_file(tmp_path / "f") != first
    assert first.read_text() == "kept"


def test_paths_are_compared_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    assert same_place(tmp_path / "d", f"{tmp_path}/l/")
    assert same_place(tmp_path / "d/not there", f"{tmp_path}/l/../d/not there")
    assert not same_place(tmp_path / "d", tmp_path)


def test_an_empty_file_may_be_written_to_and_a_missing_one_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "mktemp").touch()
    assert output_file(tmp_path / "mktemp", "anything", lambda _: False) == tmp_path / "mktemp"
    assert regular_file(tmp_path / "missing") == tmp_path / "missing"


def test_the_file_system_is_named_where_nothing_can_be_written(tmp_path: Path) -> None:
    full = unwritable(tmp_path, OSError(122, "Disk quota exceeded"), "name another")
    assert full.exit_code == 74
    assert str(full).startswith(f"cannot write {tmp_path} (Disk quota exceeded, on the ")
    assert unwritable(tmp_path, OSError(30, "Read-only file system"), "name another").exit_code == 73
