"""A directory put in another's place: what was there before, what is a user's, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from riwoa.errors import StateDirectoryError, UsageError
from riwoa.files.lock import Lock
from riwoa.files.staging import MARKER, claim, made_here, replacing, write_list
from riwoa.ipc.child import child_environment

_FAILPOINTS = ("export.before_rename", "export.between_renames", "export.after_rename")
_PROGRAM = """
import sys
from pathlib import Path
from riwoa.files.staging import made_here, replacing, write_list
with replacing(Path(sys.argv[1]), made_here) as new:
    (new / "model").write_text(sys.argv[2])
    write_list(new)
"""


def put(target: Path, content: str, name: str = "model") -> None:
    with replacing(target, made_here) as new:
        (new / name).write_text(content)
        write_list(new)


def seen(directory: Path) -> dict[str, str]:
    """What lies in a directory, besides riwoa's own marker."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != MARKER)
    return {str(path.relative_to(directory)): path.read_text() for path in files}


def test_what_a_user_laid_into_the_directory_and_beside_it_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, "old", "gone with the next")
    mine = {"notes.txt": "mine", "deep/er/notes.txt": "mine too"}
    for name, text in mine.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    (out / "empty").mkdir()
    (out / "link").symlink_to("nowhere")
    for beside in ("out.old", "out.tmp", ".out.1234.riwoa"):  # the last has the name of ours, and no marker
        (tmp_path / beside).mkdir()
        (tmp_path / beside / "thesis.txt").write_text("years of work")
    put(out, "new")
    assert seen(out) == {"model": "new", **mine}
    assert (out / "empty").is_dir()
    assert os.readlink(out / "link") == "nowhere"
    for beside in ("out.old", "out.tmp", ".out.1234.riwoa"):
        assert seen(tmp_path / beside) == {"thesis.txt": "years of work"}
    assert len(list(tmp_path.iterdir())) == 4


def test_without_hard_links_what_is_the_users_is_moved_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", none)
    out = tmp_path / "out"
    put(out, "old")
    (out / "deep").mkdir()
    (out / "deep" / "notes.txt").write_text("mine")
    put(out, "new")
    assert seen(out) == {"model": "new", "deep/notes.txt": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_of_the_users_that_would_be_replaced_is_named_and_nothing_changes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, "old")
    (out / "model.onnx").write_text("mine")
    with pytest.raises(UsageError, match=r"model\.onnx is not riwoa's, and would be replaced"):
        put(out, "new", "model.onnx")
    assert seen(out) == {"model": "old", "model.onnx": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failpoint", _FAILPOINTS)
def test_killed_anywhere_nothing_is_lost_and_the_next_one_cleans_up(failpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, "old")
    (out / "notes.txt").write_text("mine")
    environment = {**child_environment(1), "RIWOA_FAILPOINT": failpoint}
    done = subprocess.run([sys.executable, "-c", _PROGRAM, str(out), "killed"], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    if out.exists():  # whole, old or new
        assert seen(out) == {"model": "killed" if "after" in failpoint else "old", "notes.txt": "mine"}
    else:
        assert "between" in failpoint
    put(out, "new")
    assert seen(out) == {"model": "new", "notes.txt": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_is_saved_while_the_directory_is_replaced_is_kept_beside_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, "old")
    for text in ("first", "second", "third"):
        (out / "notes.txt").write_text("mine")

        def saved(directory: Path, text: str = text) -> Collection[str] | None:
            """Called last when ``old`` is emptied: by then an editor has saved what it had open there."""
            if directory.name == "old":
                (directory / "saved").write_text(text)
                (directory / "saved").rename(directory / "notes.txt")
            return made_here(directory)

        with replacing(out, saved) as new:
            (new / "model").write_text("new")
            write_list(new)
    kept = {"notes.txt.kept": "first", "notes.txt.kept2": "second", "notes.txt.kept3": "third"}
    assert seen(out) == {"model": "new", "notes.txt": "mine", **kept}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_between_the_renames_and_written_anew_by_the_user_both_files_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, "old")
    (out / "notes.txt").write_text("the only copy")
    environment = {**child_environment(1), "RIWOA_FAILPOINT": "export.between_renames"}
    subprocess.run([sys.executable, "-c", _PROGRAM, str(out), "killed"], env=environment, check=False)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("begun again")
    put(out, "new")
    assert seen(out) == {"model": "new", "notes.txt": "begun again", "notes.txt.kept": "the only copy"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_where_a_lock_is_never_to_be_had_nothing_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def held(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    put(tmp_path / "out", "old")
    monkeypatch.setattr(fcntl, "flock", held)
    with pytest.raises(StateDirectoryError, match="nothing can be locked"):
        put(tmp_path / "out", "new")
    assert seen(tmp_path / "out") == {"model": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_another_process_is_filling_is_left_alone(tmp_path: Path) -> None:
    busy = tmp_path / ".out.abcd.riwoa"
    (busy / "new").mkdir(parents=True)
    (busy / MARKER).write_text("")
    holding = (
        f"import sys, time; from riwoa.files.lock import Lock; Lock({str(busy / MARKER)!r}).take(); print(flush=True)"
    )
    command = [sys.executable, "-c", f"{holding}; sys.stdin.read()"]
    with subprocess.Popen(command, env=child_environment(1), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        put(tmp_path / "out", "new")
        assert (busy / "new").is_dir()
        other.kill()
    put(tmp_path / "out", "newer")
    assert not busy.exists()


def test_the_old_one_stays_where_the_new_one_fails(tmp_path: Path) -> None:
    put(tmp_path / "out", "old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out", made_here) as new:
        (new / "not there" / "model").write_text("half")
    assert seen(tmp_path / "out") == {"model": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_to_work_in_is_claimed_only_where_it_is_ours_or_nobodys(tmp_path: Path) -> None:
    def hubs(path: Path) -> bool:
        return (path / ".cache").is_dir()

    claim(tmp_path / "new")
    claim(tmp_path / "new")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    with pytest.raises(StateDirectoryError, match="was not made by riwoa; move it away"):
        claim(tmp_path / "theirs", hubs)
    (tmp_path / "theirs" / ".cache").mkdir()
    claim(tmp_path / "theirs", hubs)


# -- locks -----------------------------------------------------------------------------------------------------------


def test_a_lock_is_kept_by_process_ids_where_there_are_no_locks_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(fcntl, "lockf", none)
    file = tmp_path / "lock"
    program = f"from riwoa.files.lock import Lock; Lock({str(file)!r}).take(); print(flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=child_environment(1), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with Lock(file) as lock:
            assert not lock.take()
            assert lock.owner == str(other.pid)
            other.kill()
            other.wait()
            assert lock.take()
            assert "the process id in the lock file must tell" in str(lock.warning)
    recycled = file.read_text().replace(str(os.getpid()), "1", 1)  # another process has the dead one's id
    file.write_text(recycled)
    with Lock(file) as lock:
        assert lock.take()


def test_of_two_that_found_a_lock_free_at_once_the_one_whose_word_stands_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(fcntl, "lockf", none)
    file = tmp_path / "lock"

    def write_later() -> None:
        while not (file.exists() and file.read_text().startswith(f"{os.getpid()}\n")):
            pass
        file.write_text("1\nstart=1\n")

    with Lock(file) as lock, ThreadPoolExecutor() as other:
        writing = other.submit(write_later)
        assert not lock.take()
        writing.result(10)
        assert lock.owner == "1"


def test_a_lock_file_is_never_empty_while_it_is_written_anew_nor_on_a_full_disk(tmp_path: Path) -> None:
    program = f"""
import resource
from riwoa.files.lock import Lock
lock = Lock({str(tmp_path / "lock")!r})
lock.take()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
lock.tell(socket="/x")
print(lock.owner == str(__import__("os").getpid()))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=child_environment(1), capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    with Lock(tmp_path / "lock") as lock, ThreadPoolExecutor() as other:

        def tell_often() -> None:
            for n in range(2000):
                lock.tell(socket="/x" * (n % 3))

        assert lock.take()
        writing = other.submit(tell_often)
        while not writing.done():
            assert lock.owner == str(os.getpid())


@pytest.mark.parametrize("content", ["my own notes\n", None])
def test_a_file_that_is_no_lock_of_riwoas_is_not_overwritten(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "lock"
    if content is None:
        os.mkfifo(file)
    else:
        file.write_text(content)
    with pytest.raises(StateDirectoryError, match="is no lock file of riwoa's"):
        Lock(file)
    assert content is None or file.read_text() == content


def test_a_list_of_what_was_written_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    assert made_here(tmp_path) is None
    write_list(tmp_path)
    found: Collection[str] | None = made_here(tmp_path)
    assert found is not None
    assert set(found) == {MARKER, "a"}


@pytest.mark.parametrize("failpoint", ["export.filling", "export.after_rename"])
def test_an_empty_directory_is_filled_and_stays_what_it_was_after_a_kill_too(failpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    environment = {**child_environment(1), "RIWOA_FAILPOINT": failpoint}
    command = [sys.executable, "-c", _PROGRAM, str(out), "first"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    put(out, "second")
    assert seen(out) == {"model": "second"}
    out.rename(tmp_path / "elsewhere")
    out.mkdir()
    itself = out.stat().st_ino
    put(out, "third")
    assert out.stat().st_ino == itself
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]


def test_an_empty_disk_that_is_mounted_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    script = 'mount -t tmpfs none "$1" && "$2" -c "$3" "$1" there && cat "$1/model" && ls -a "$1/.."'
    command = ["unshare", "-m", "bash", "-c", script, "bash", str(out), sys.executable, _PROGRAM]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting needs root and unshare")
    done = subprocess.run(command, env=child_environment(1), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["there.", "..", "out"]
