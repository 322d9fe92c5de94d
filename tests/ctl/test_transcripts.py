"""What the handbook shows of a terminal is what the verbs print: each ``$ riwoactl ...`` is run, and compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.ctl import main
from riwoa.ctl.help import TOPICS, read_page
from riwoa.errors import ConfigError
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import shipped_table
from tests.folders import make_photos

from .made_up_world import commit, drawn, slower_table
from .past_journal import write_past
from .support import daemon, status_object, transcripts

_COLUMNS = 72
_HOME = "/home/ada"
_SET_ASIDE = {  # what differs from one machine, or one moment, to the next
    r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}": "WHEN",
    r"(?<=, since )[0-9]{2}:[0-9]{2}\b": "CLOCK",
    r"\b[0-9a-f]{64}\b": "DIGEST",
    r"[0-9]+ generations(?=, digest)": "N generations",
    r"device: .*": "device: DEVICE",
    r"(?<=running for )[0-9]+ s": "SECONDS",
    r"[0-9]+ s(?= ago)": "SECONDS",
    r"about [0-9a-z ]+(?=\))": "about SO LONG",
    # A fit's last digits, and with them a climb, may be another processor's.
    r"best predicted: [\s\S]*?\nto be sure: [\s\S]*?\(95 %\)": "PREDICTION",
    r"(?<= ms)  [0-9]{2}\.[0-9]{2} %    [0-9]+$": "  PREDICTED",
}
_CHECKED_ELSEWHERE = {"model"}  # by test_model.py: it takes a real model


def plain(text: str, home: Path) -> str:
    """A text without what differs from one machine, or one moment, to the next."""
    text = text.replace(os.path.realpath(home), _HOME).replace(str(home), _HOME)
    for pattern, name in _SET_ASIDE.items():
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("past")
    write_past(state / "journal.db")
    return state


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of the handbook's width."""
    monkeypatch.setenv("COLUMNS", str(_COLUMNS))
    monkeypatch.setattr("riwoa.ctl.status._columns", lambda: _COLUMNS)
    monkeypatch.delenv("RIWOA_CONFIG", raising=False)


# -- what each page's commands are run on ------------------------------------------------------------------------------


@contextmanager
def _journal(home: Path, past: Path) -> Iterator[None]:
    shutil.copytree(past, home / ".riwoa")
    yield


@contextmanager
def _running(home: Path, past: Path) -> Iterator[None]:
    """A daemon in the midst of a search."""
    state, now_unix_s = home / ".riwoa", time.time()
    state.mkdir()
    status = status_object(
        state_directory=f"{_HOME}/.riwoa",
        state_since_unix_s=now_unix_s - 14.0,
        updated_unix_s=now_unix_s,
        run={"run_id": 1, "phase": "search", "generation": 23, "generations": 200, "most_evaluations": 150}
        | {"target_ms": 0.135},
        evaluations={"unique": 92, "failed": 0, "per_s": 4.6},
        time_left_s=12.0,
        leader=_leader(0.8806, 0.0162, 92, 0.133),
        improvement={
            "generation": 21, "found_unix_s": now_unix_s - 2.0, "operator": "climb", "value": 0.8806,
            "former_value": 0.8778, "latency_ms": 0.133, "former_latency_ms": 0.133,
        },
        workers=[
            {"name": f"oracle-{i}", "state": "busy", "job": "x", "done": 46, "restarts": 0, "busy_share": 0.9, "pid": 5}
            for i in range(2)
        ],
        config=None,
    )  # fmt: skip
    with daemon(state, {"ok": True, "status": status}):
        yield


@contextmanager
def _killed(home: Path, past: Path) -> Iterator[None]:
    """What a killed daemon left behind, and two journals of one history beside it."""
    state = home / ".riwoa"
    state.mkdir()
    status = status_object(
        state_directory=f"{_HOME}/.riwoa",
        updated_unix_s=time.mktime((2026, 11, 27, 22, 16, 53, 0, 0, -1)),
        run={"run_id": 1, "phase": "search", "generation": 2, "generations": 40, "target_ms": 0.135},
        evaluations={"unique": 8, "failed": 0, "per_s": 2.0},
        leader=_leader(0.8366, 0.0185, 8, 0.120),
        improvement=None,
        pareto=None,
        config=None,
        go_on=f"riwoad --foreground --state {_HOME}/.riwoa",
    )
    (state / "status.json").write_text(json.dumps(status))
    for name in ("a", "b"):
        shutil.copytree(past, home / name)
    yield


def _leader(accuracy: float, error: float, tries: int, latency_ms: float) -> dict[str, Any]:
    return {
        "metric": "accuracy", "value": accuracy, "accuracy": accuracy, "accuracy_error": error, "tries": tries,
        "images": 3200, "latency_ms": latency_ms, "latency_interval": 0.02, "feasible": True,
    }  # fmt: skip


@contextmanager
def _littered(home: Path, past: Path) -> Iterator[None]:
    """A journal, an export that was killed, and a backup too many; no byte of them is written."""
    state = home / ".riwoa"
    shutil.copytree(past, state)
    staging = state / ".export.5f0c2a91.riwoa"
    sizes = {staging / ".riwoa": 0, staging / "new" / "model.onnx": 2_100_000}
    sizes |= {state / "backups" / f"riwoa-202611{day:02}-031502.db": 88_000_000 for day in range(1, 9)}
    for file, size_bytes in sizes.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.truncate(size_bytes)
    yield


@contextmanager
def _devices(home: Path, past: Path) -> Iterator[None]:
    """A finished search, and the tables of two devices that it knew nothing of."""
    state = home / ".riwoa"
    state.mkdir()
    commit(state, drawn(300), noise=0.004)
    LatencyTable.load(shipped_table()).save(home / "pi.json")
    slower_table().save(home / "jetson.json")
    yield


@contextmanager
def _photos(home: Path, past: Path) -> Iterator[None]:
    make_photos(home / "photos", 8, 60, source="digits")
    yield


_ON: dict[str, Callable[[Path, Path], Any]] = {
    "history": _journal,
    "status": _running,
    "recovery": _killed,
    "latency": _devices,
    "service": _littered,
    "quickstart": _photos,
}


# -- the tests ---------------------------------------------------------------------------------------------------------


def test_every_page_with_a_transcript_is_checked() -> None:
    assert {topic for topic in TOPICS if transcripts(topic)} == {*_ON, *_CHECKED_ELSEWHERE}


@pytest.mark.parametrize("topic", _ON)
def test_the_transcripts_of_a_page_are_what_the_verbs_print(
    topic: str, past: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIWOA_STATE", str(tmp_path / ".riwoa"))
    page = read_page(topic)
    with _ON[topic](tmp_path, past):
        for command, shown in transcripts(topic):
            main(command.split())
            out, err = capsys.readouterr()
            said, expected = plain(out or err, tmp_path), plain(shown, tmp_path)
            if "ong lines are wrapped" in page:
                said, expected = " ".join(said.split()), " ".join(expected.split())
            assert said == expected, f"riwoactl {command}"


def test_the_file_that_init_writes_is_the_one_that_the_quick_start_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", 3, 24, source="digits")
    assert main(["init", "photos", "--latency", "20ms"]) == 0
    shown, *_ = re.findall(r"```toml\n(.*?)```", read_page("quickstart"), re.DOTALL)
    written = plain((tmp_path / "riwoa.toml").read_text(encoding="utf-8"), tmp_path)
    assert tomllib.loads(written) == tomllib.loads(shown)


def test_what_a_reload_says_is_what_the_page_of_the_configuration_shows(tmp_path: Path) -> None:
    file = tmp_path / "riwoa.toml"
    file.write_text("[run]\ngenerations = 40\n")
    reloader = Reloader(load(file, (), {}), [])
    file.write_text("[run]\ngenerations = 30\n")
    applies = reloader.reload().sentence
    file.write_text("[run]\ngenerations = 30\nseed = 5\n")
    with pytest.raises(ConfigError) as refused:
        reloader.reload()
    (shown,) = re.findall(r"```\n(applies at the next generation: .*?)```", read_page("configuration"), re.DOTALL)
    assert " ".join(shown.split()) == f"{applies} {refused.value}".replace(str(file), "riwoa.toml")
