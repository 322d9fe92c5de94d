"""File systems as some users have them: ``shared/cases/fs_shim.c`` preloaded into a process. Skips where it is not."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "shared/cases/fs_shim.c"


@functools.cache
def _library() -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not SOURCE.exists():
        pytest.skip("needs a C compiler and the cases beside the checkout")
    made = Path(tempfile.mkdtemp(prefix="riwoa-shim-"), "shim.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", made, SOURCE, "-ldl"], check=True)
    return made


def shim(under: Path, **settings: str | int) -> dict[str, str]:
    """Environment of a process for which the files below ``under`` lie on such a file system.

    Args:
        under: the directory; files elsewhere are left alone.
        settings: what the C file names, without its prefix: ``flock=errno.ENOLCK``, ``dirfsync=errno.EINVAL``,
            ``quota=FILE, qerr=errno.EDQUOT`` (in force while FILE exists), ``bind=1``, ``clock=FILE``.
    """
    asked = {f"SHIM_{name.upper()}": str(value) for name, value in settings.items()}
    return {**os.environ, "LD_PRELOAD": str(_library()), "SHIM_UNDER": str(under.resolve()), **asked}


NO_LOCKS = {"flock": errno.ENOLCK}
NO_DIRECTORY_FSYNC = {"dirfsync": errno.EINVAL}
