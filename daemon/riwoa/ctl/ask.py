"""Talking to the daemon: is one alive, and what does it answer. Light: ``riwoactl status`` imports this."""

from __future__ import annotations

import json
import os

from riwoa.errors import ControlError, DaemonUnavailableError, RiwoaError
from riwoa.paths import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from riwoa.paths import StatePaths

_MOST_BYTES = 1 << 24


class SilentError(RiwoaError):
    """Somebody listens on the control socket but gives no proper answer in time."""

    exit_code = DaemonUnavailableError.exit_code


def ask(paths: StatePaths, verb: str, timeout_s: float) -> dict[str, Any]:
    """Send one verb to the daemon and return its answer.

    Raises:
        DaemonUnavailableError: no daemon listens.
        SilentError: one listens, but does not answer in time or not in JSON.
        ControlError: the daemon refused, or this user may not ask it; exit code as the daemon says.
    """
    name = paths.socket_name
    try:
        os.stat(name)  # spares the import of socket where no daemon runs
        client = connect(name, timeout_s)
    except PermissionError:
        raise ControlError(f"not allowed to talk to the daemon at {name}; run as its user or group") from None
    except TimeoutError:
        raise SilentError(f"the daemon at {name} does not answer; see its log") from None
    except OSError:
        raise DaemonUnavailableError(
            f"no daemon runs on {paths.directory}; start one with `riwoad --state {paths.directory}` (or make run)"
        ) from None
    with client:
        try:
            client.sendall(json.dumps({"verb": verb}).encode() + b"\n")
            answer = json.loads(_line(client))
        except (OSError, ValueError):
            raise SilentError(f"the daemon at {name} gave no answer to {verb!r} within {timeout_s:g} s") from None
    if not isinstance(answer, dict) or not answer.get("ok"):
        raise _refusal(answer)
    return answer


def _line(client: Any) -> bytes:
    found = b""
    while not found.endswith(b"\n") and len(found) < _MOST_BYTES:
        piece = client.recv(65536)
        if not piece:
            break
        found += piece
    return found


def _refusal(answer: Any) -> RiwoaError:
    data = answer if isinstance(answer, dict) else {}
    error = ControlError(str(data.get("error") or "the daemon refused without a reason; see its log"))
    error.exit_code = int(data.get("exit_code") or error.exit_code)
    return error
