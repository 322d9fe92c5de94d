"""The store of champions: what is decided is kept, and a kill at any moment leaves a whole champion and its record."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from riwoa.errors import InputError, StateDirectoryError, StateLockedError
from riwoa.paths import StatePaths
from riwoa.service.champion_status import PROMOTED, ROLLED_BACK
from riwoa.service.champions import REFUSED, Champions, export_name

ROOT = Path(__file__).resolve().parents[2]
PROMOTE = """\
import sys
from pathlib import Path
from riwoa.paths import StatePaths
from riwoa.service.champions import Champions
with Champions(StatePaths(sys.argv[1])) as champions:
    champions.roll_back("a test") if sys.argv[2] == "back" else champions.promote(Path(sys.argv[2]), "a test", {})
"""


def an_export(folder: Path, content: str) -> Path:
    """The least that is an export: a model, in a folder of its own too, and what lists them."""
    (folder / "adapter").mkdir(parents=True)
    files = {"model.onnx": content, "adapter/weights": content * 2}
    for name, text in files.items():
        (folder / name).write_text(text)
    listed = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    (folder / "provenance.json").write_text(json.dumps({"digest": content, "files_sha256": listed}))
    (folder / "notes.txt").write_text("the user's own")
    return folder


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    return StatePaths(tmp_path / "state")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return an_export(tmp_path / "old", "old")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return an_export(tmp_path / "new", "new")


def deployed(paths: StatePaths) -> str:
    """What lies behind the link, as a deployment reads it."""
    found = (paths.state / "champion/model.onnx").read_text()
    assert (paths.state / "champion/adapter/weights").read_text() == found * 2
    return found


def test_a_promoted_export_is_deployed_as_it_was_and_without_the_users_files(paths: StatePaths, old: Path) -> None:
    with Champions(paths) as champions:
        assert champions.champion is None
        champions.promote(old, "the first", {"limit_ms": 1.0})
    (old / "model.onnx").write_text("changed later")
    assert deployed(paths) == "old"
    assert not (paths.state / "champion/notes.txt").exists()
    with Champions(paths) as champions:
        (decision,) = champions.decisions
        assert (decision.decision, decision.why, decision.gate) == (PROMOTED, "the first", {"limit_ms": 1.0})


def test_rolling_back_returns_champion_by_champion_and_ends_at_the_first(
    paths: StatePaths, old: Path, new: Path, tmp_path: Path
) -> None:
    with Champions(paths) as champions:
        for export in (old, new, an_export(tmp_path / "newest", "newest")):
            champions.promote(export, "better", {})
        champions.roll_back("worse in the shop")
        assert deployed(paths) == "new"
        champions.promote(old, "again", {})  # a champion may return
        champions.roll_back("no")
        assert deployed(paths) == "new"
        champions.roll_back("no")
        assert deployed(paths) == "old"
        with pytest.raises(InputError, match="no champion to return to"):
            champions.roll_back("no")
        assert [d.decision for d in champions.decisions] == [*[PROMOTED] * 3, ROLLED_BACK, PROMOTED, *[ROLLED_BACK] * 2]


def test_a_refusal_is_kept_and_changes_nothing(paths: StatePaths, old: Path, new: Path) -> None:
    with Champions(paths) as champions:
        champions.promote(old, "the first", {})
        champions.refuse(new, "may be chance", {})
    with Champions(paths) as champions:
        assert [d.decision for d in champions.decisions] == [PROMOTED, REFUSED]
        assert champions.champion is not None
        assert champions.champion.champion == export_name(old)
    assert deployed(paths) == "old"


@pytest.mark.parametrize(
    ("failpoint", "left"),
    [
        ("champions.adopted", "old"),
        ("champions.before_record", "old"),
        ("champions.after_record", "new"),
        ("champions.after_link", "new"),
    ],
)
def test_killed_in_a_promotion_the_champion_is_whole_and_the_next_look_agrees_with_the_record(
    failpoint: str, left: str, paths: StatePaths, old: Path, new: Path
) -> None:
    with Champions(paths) as champions:
        champions.promote(old, "the first", {})
    assert promote(paths, new, failpoint) == -signal.SIGKILL
    assert deployed(paths) in ("old", left)
    with Champions(paths) as champions:
        assert deployed(paths) == left
        assert [d.decision for d in champions.decisions] == [PROMOTED] * (2 if left == "new" else 1)
        champions.promote(new, "again", {})
    assert deployed(paths) == "new"
    assert not list((paths.state / "champions").glob("*.part"))


def test_killed_in_a_rollback_the_link_follows_the_record(paths: StatePaths, old: Path, new: Path) -> None:
    with Champions(paths) as champions:
        champions.promote(old, "the first", {})
        champions.promote(new, "better", {})
    assert promote(paths, Path("back"), "champions.after_record") == -signal.SIGKILL
    assert deployed(paths) == "new"
    with Champions(paths):
        assert deployed(paths) == "old"


def promote(paths: StatePaths, export: Path, failpoint: str) -> int:
    roots = os.pathsep.join(str(ROOT / root) for root in ("daemon", "storage"))
    environment = {**os.environ, "PYTHONPATH": roots, "RIWOA_FAILPOINT": failpoint}
    command = [sys.executable, "-c", PROMOTE, str(paths.state), str(export)]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode


def test_a_damaged_export_is_not_promoted(paths: StatePaths, old: Path, new: Path) -> None:
    (new / "adapter/weights").write_text("flipped")
    with Champions(paths) as champions:
        champions.promote(old, "the first", {})
        with pytest.raises(InputError, match="weights is not as it was exported"):
            champions.promote(new, "better", {})
        with pytest.raises(InputError, match="is no export of riwoa's"):
            champions.promote(paths.state, "better", {})
    assert deployed(paths) == "old"


def test_a_champion_whose_files_were_damaged_is_not_returned_to(paths: StatePaths, old: Path, new: Path) -> None:
    with Champions(paths) as champions:
        champions.promote(old, "the first", {})
        champions.promote(new, "better", {})
        (champions.files(export_name(old)) / "model.onnx").write_text("flipped")
        with pytest.raises(InputError, match=r"model\.onnx is not as it was exported"):
            champions.roll_back("worse")
    assert deployed(paths) == "new"


def test_what_is_the_users_in_the_links_place_stays(paths: StatePaths, old: Path) -> None:
    (paths.state / "champion").mkdir(parents=True)
    with Champions(paths) as champions, pytest.raises(StateDirectoryError, match="is not riwoa's link"):
        champions.promote(old, "the first", {})
    assert (paths.state / "champion").is_dir()
    assert not (paths.state / "champion").is_symlink()


def test_two_at_once_are_one_after_the_other(paths: StatePaths) -> None:
    with Champions(paths), pytest.raises(StateLockedError, match="already works in"), Champions(paths):
        pass
