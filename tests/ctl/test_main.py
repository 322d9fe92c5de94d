import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from riwoa import ctl
from riwoa.ctl import Options, main

from .support import daemon, environment, individual, riwoactl, status_object, write_journal


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["statsu"], "did you mean 'status'"),
        (["lut", "biuld"], "did you mean 'build'"),
        ([], "name a verb"),
        (["--sate", "x", "status"], "unknown option '--sate'"),
        (["status", "--state"], "--state needs a directory"),
        (["status", "extra"], "unrecognized arguments: extra"),
        (["config"], "needs one of: show, check"),
        (["verify", "--agianst", "x"], "unrecognized arguments"),
    ],
)
def test_a_wrong_command_line_exits_64_and_says_what_was_meant(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 64
    out, err = capsys.readouterr()
    assert hint in err
    assert err.startswith("riwoactl: ")
    assert err.count("\n") == 1
    assert not out


@pytest.mark.parametrize("verb", [*ctl.VERBS])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"usage: riwoactl {verb}" in capsys.readouterr().out


def test_help_names_every_verb_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    from riwoa import errors
    from riwoa_storage import errors as storage_errors

    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in ctl.VERBS)
    classes = [c for m in (errors, storage_errors) for c in vars(m).values() if isinstance(c, type)]
    codes = {c.exit_code for c in classes if hasattr(c, "exit_code")}
    assert all(f" {code}  " in out for code in codes)


@pytest.mark.parametrize("before", [True, False])
def test_common_options_stand_before_or_after_the_verb(
    before: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--json", f"--state={tmp_path}"]
    assert main([*common, "status"] if before else ["status", *common]) == 3
    assert json.loads(capsys.readouterr().out)["state_directory"] == str(tmp_path)


def test_an_error_is_an_object_too_where_json_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "--json", "--state", str(tmp_path)]) == 69
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["exit_code"] == 69
    assert answer["error"] in err


def test_an_interrupt_exits_130_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(rest: list[str], options: Options) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(ctl, "_dispatch", interrupted)
    assert main(["status"]) == 130


def test_a_reader_that_has_gone_is_no_error() -> None:
    command = [sys.executable, "-m", "riwoa.ctl", "config", "show"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
    assert process.returncode == 141
    assert complaint == b""


# What the interpreter itself loads varies; these are the costly ones, and everything of riwoa that is not meant for it.
_ALLOWED_OF_RIWOA = {
    *("riwoa", "riwoa.ctl", "riwoa.ctl.status", "riwoa.ctl.status_text", "riwoa.ctl.ask"),
    *("riwoa.console", "riwoa.console.streams", "riwoa.errors", "riwoa.paths", "riwoa.parsing", "riwoa.text"),
    *("riwoa.files", "riwoa.files.lock", "riwoa.files.ownership", "riwoa.hardware", "riwoa.hardware.interval"),
    *("riwoa.operators",),  # a table of names, for the last improvement
    *(
        "riwoa.service",
        "riwoa.service.champion_status",
        "riwoa.service.limit_text",
        "riwoa.service.progress",
        "riwoa.service.status_check",
        "riwoa.service.status_object",
        "riwoa.service.target_text",
        "riwoa.service.timed_status",
    ),
}
_ALLOWED_OF_STORAGE = {
    *("riwoa_storage", "riwoa_storage.overview", "riwoa_storage.connect"),
    *("riwoa_storage.errors", "riwoa_storage.fault"),
}
_FORBIDDEN = "argparse asyncio dataclasses inspect numpy pathlib pydantic subprocess torch typing".split()


@pytest.mark.parametrize("source", ["nothing", "file", "journal", "daemon"])
def test_status_imports_only_what_starts_in_milliseconds(source: str, tmp_path: Path) -> None:
    if source == "file":
        (tmp_path / "status.json").write_text(json.dumps(status_object()))
    if source == "journal":
        write_journal(tmp_path / "journal.db", [(individual(0, ("a", 0.5, 1.0)),)])
    program = (
        "import sys; before = set(sys.modules); from riwoa.ctl import main; code = main(sys.argv[1:]);"
        "print(code, *sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "status", "--state", str(tmp_path)]
    with daemon(tmp_path, {"ok": True, "status": status_object()}) if source == "daemon" else nullcontext():
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    code, *loaded = done.stderr.split()
    assert code == ("0" if source == "daemon" else "3")
    assert {m for m in loaded if m.split(".")[0] == "riwoa"} <= _ALLOWED_OF_RIWOA
    assert {m for m in loaded if m.split(".")[0] == "riwoa_storage"} <= _ALLOWED_OF_STORAGE
    assert not [m for m in loaded if m.split(".")[0] in _FORBIDDEN]
    assert ("sqlite3" in loaded) == (source == "journal")
    assert ("socket" in loaded) == (source == "daemon")


def test_the_module_runs_where_the_script_is_not_installed(tmp_path: Path) -> None:
    done = riwoactl("status", "--state", tmp_path)
    assert done.returncode == 3
    assert "no run here" in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        (KeyError("odd"), 70, "riwoactl: a bug: KeyError: 'odd'; please report it with the lines above"),
        (PermissionError(13, "Permission denied", "/x/journal.db"), 74, "riwoactl: /x/journal.db: Permission denied"),
        (OSError(38, "Function not implemented"), 74, "riwoactl: Function not implemented"),
    ],
)
def test_only_a_bug_is_called_one(
    error: Exception, code: int, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr("riwoa.ctl.status.collect", fail)
    assert main(["status", "--state", str(tmp_path)]) == code
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == last
    assert (len(told) > 1) == (code == 70)
