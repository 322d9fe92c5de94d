"""Named places where a test may have the process killed, as a power cut would."""

from __future__ import annotations

import os
import signal

_wanted, _, _count = os.environ.get("RIWOA_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    """SIGKILL this process when ``RIWOA_FAILPOINT=name[:n]`` asks for it at the n-th passage; else nothing."""
    global _left
    if name != _wanted:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
