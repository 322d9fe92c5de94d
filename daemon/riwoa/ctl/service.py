"""``riwoactl service``: riwoa as a systemd service of this machine, on its own user, under its hardened unit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit, subverb
from riwoa.errors import InputError, ServiceManagerError, StateDirectoryError, UsageError
from riwoa.paths import shipped
from riwoa_storage.durable import replace_durably

UNIT = "riwoa.service"
NIGHTLY = "riwoa-nightly.service"
_KNOWN = {
    "install": "write the unit, its user and an example configuration",
    "uninstall": "stop the service and remove its unit; state and configuration stay",
    "status": "what systemd says of it",
}
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # what ProtectHome and PrivateTmp take away
# file of the package -> where systemd, or riwoa, looks for it
_UNIT_FILE = f"etc/systemd/system/{UNIT}"
_USER_FILE = "etc/sysusers.d/riwoa.conf"
_TIMED = ("riwoa-nightly.service", "riwoa-nightly.timer", "riwoa-backup.service", "riwoa-backup.timer")
_TIMED_FILES = {f"etc/systemd/system/{name}": name for name in _TIMED}
_GPU_FILES = tuple(f"etc/systemd/system/{name}.d/gpu.conf" for name in (UNIT, "riwoa-nightly.service"))
_CONFIGURATION = "etc/riwoa/riwoa.toml"
_SHOWN = ("LoadState", "ActiveState", "SubState", "Result", "MainPID", "NRestarts", "ExecMainStatus", "StatusText")
_RUNNING = ("active", "activating", "reloading")
_NOT_RUNNING = 3
_PATIENCE_S = 120.0  # with a command of systemd


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Install, uninstall or show the service."""
    name = subverb(verb, arguments, _KNOWN)
    parser = Parser(f"service {name}", description=f"{_KNOWN[name].capitalize()}.")
    if name != "status":
        parser.add_argument(
            "--root", type=Path, default=Path("/"), metavar="DIR", help="another system's root directory"
        )
    if name == "install":
        parser.add_argument("--gpu", action="store_true", help="let the service use an NVIDIA GPU")
    given = parser.parse_args(arguments[1:])
    if name == "install":
        return _install(given.root, given.gpu, options)
    return _uninstall(given.root, options) if name == "uninstall" else _status(options)


def unit_file(name: str) -> str:
    """The text of a file in the package's ``systemd`` folder.

    Raises:
        InputError: this installation lacks it.
    """
    try:
        return (shipped("systemd") / name).read_text(encoding="utf-8")
    except OSError:
        raise InputError(f"this installation lacks systemd/{name}; install riwoa again") from None


def _install(root: Path, gpu: bool, options: Options) -> int:
    _require_systemd(root)
    units = {_UNIT_FILE: UNIT, **_TIMED_FILES}
    programs = str(_programs(root))
    wanted = {place: unit_file(name).replace("/opt/riwoa/bin", programs) for place, name in units.items()}
    wanted[_USER_FILE] = unit_file("riwoa.sysusers")
    if gpu:
        wanted |= dict.fromkeys(_GPU_FILES, unit_file("gpu.conf"))
    if not (root / _CONFIGURATION).exists():
        wanted[_CONFIGURATION] = unit_file("riwoa.toml")
    for place, text in wanted.items():
        if (root / place).exists() and not _ours(root / place, text):
            raise UsageError(f"{root / place} is not riwoa's; move it away, or put what differs into a drop-in")
    try:
        for place, text in wanted.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            replace_durably(root / place, text.encode())
            (root / place).chmod(0o644)
    except OSError as error:
        raise StateDirectoryError(f"{error.filename}: cannot be written ({error.strerror}); run it with sudo") from None
    if root == Path("/"):
        _call("systemd-sysusers", f"/{_USER_FILE}")
        _call("systemctl", "daemon-reload")
    written = [str(root / place) for place in wanted]
    text = "\n".join(
        [
            *(f"wrote {place}" for place in written),
            "",
            "a language model for it (once):  RIWOA_MODELS=/var/lib/riwoa/models riwoactl model pull smollm2",
            "start it now and at every boot:  systemctl enable --now riwoa",
            "or search by night alone:        systemctl enable --now riwoa-nightly.timer",
            "copy the journal every day:      systemctl enable --now riwoa-backup.timer",
            "see what it does:                riwoactl status    journalctl -u riwoa",
            "let somebody see it too:         usermod -aG riwoa NAME",
        ]
    )
    emit(options, {"written": written}, text)
    return 0


def _uninstall(root: Path, options: Options) -> int:
    if root == Path("/") and (root / _UNIT_FILE).exists():
        installed = [name for place, name in {_UNIT_FILE: UNIT, **_TIMED_FILES}.items() if (root / place).exists()]
        _call("systemctl", "disable", "--now", *installed)
    removed = []
    try:
        shipped_as = {_UNIT_FILE: UNIT, **_TIMED_FILES, **dict.fromkeys(_GPU_FILES, "gpu.conf")}
        for place, name in {**shipped_as, _USER_FILE: "riwoa.sysusers"}.items():
            if (root / place).exists() and _ours(root / place, unit_file(name)):
                (root / place).unlink()
                removed.append(str(root / place))
        for folder in (root / place for place in map(os.path.dirname, _GPU_FILES)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise StateDirectoryError(f"{error.filename}: cannot be removed ({error.strerror}); run it with sudo") from None
    if root == Path("/") and removed:
        _call("systemctl", "daemon-reload")
    kept = "kept: /var/lib/riwoa (journal, tables, models), /etc/riwoa, the user riwoa"
    emit(options, {"removed": removed}, "\n".join([*(f"removed {place}" for place in removed), kept]))
    return 0


def _ours(file: Path, shipped_text: str) -> bool:
    """Whether a system file is riwoa's, by its first line, which is the same in every version so far."""
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0] == shipped_text.partition("\n")[0]
    except (OSError, ValueError):
        return False


def _status(options: Options) -> int:
    units = {name: _shown(name) for name in (UNIT, NIGHTLY)}
    if units[UNIT].get("LoadState") != "loaded":
        raise UsageError("the service is not installed; `riwoactl service install` does it")
    running = [name for name, facts in units.items() if facts.get("ActiveState") in _RUNNING]
    # The one that searches; at rest, the one that would after a boot.
    name = running[0] if running else UNIT
    emit(options, {"unit": name, **units[name]}, "\n".join(_described(name, units[name])))
    return 0 if running else _NOT_RUNNING


def _shown(unit: str) -> dict[str, str]:
    shown = _call("systemctl", "show", unit, f"--property={','.join(_SHOWN)}")
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def _described(unit: str, facts: dict[str, str]) -> Iterator[str]:
    yield f"{unit}  {facts.get('ActiveState')} ({facts.get('SubState')}), restarted {facts.get('NRestarts')} times"
    if facts.get("StatusText"):
        yield f"  {facts['StatusText']}"
    if facts.get("Result") not in ("success", None):
        yield f"  last ended: {facts['Result']}, exit status {facts.get('ExecMainStatus')}; see `journalctl -u {unit}`"


def _programs(root: Path) -> Path:
    """The folder of riwoad and riwoactl, where the service can read it.

    Raises:
        UsageError: it lies where the unit's hardening hides it.
    """
    daemon = Path(sys.executable).parent / "riwoad"
    if not daemon.exists():
        raise UsageError(f"no riwoad beside {sys.executable}; install riwoa with pip first")
    parts = (daemon, Path(sys.executable).resolve(), Path(__file__).resolve())
    hidden = next((part for part in parts if str(part).startswith(tuple(f"{place}/" for place in _HIDDEN))), None)
    if hidden is not None and root == Path("/"):
        raise UsageError(
            f"the hardened service cannot read {hidden} (no home directories, its own /tmp); install riwoa elsewhere: "
            "python3 -m venv /opt/riwoa && /opt/riwoa/bin/pip install . && /opt/riwoa/bin/riwoactl service install"
        )
    if any(character in str(daemon) for character in " \t%\"'\\$;"):
        raise UsageError(f"systemd would not take {daemon} as it is; install riwoa into a path of plain characters")
    return daemon.parent


def _require_systemd(root: Path) -> None:
    if root == Path("/") and not Path("/run/systemd/system").is_dir():
        raise UsageError("this system was not booted with systemd; run `riwoad` under whatever it uses instead")
    if root == Path("/") and os.geteuid() != 0:
        raise UsageError("writing system files needs root; run it with sudo")


def _call(*command: str) -> str:
    """The output of a command of systemd.

    Raises:
        ServiceManagerError: it is missing, it does not end, or it failed; with its own words.
    """
    words = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    except FileNotFoundError:
        raise ServiceManagerError(f"no {command[0]} on this machine: `{words}` needs systemd") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceManagerError(f"`{words}` failed: {error}") from None
    if done.returncode != 0:
        raise ServiceManagerError(f"`{words}` failed: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout
