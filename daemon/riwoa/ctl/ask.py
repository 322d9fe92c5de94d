"""Asks the daemon over its control socket. ``riwoactl status`` imports this, so it imports nothing slow to start."""

from __future__ import annotations

import json
import os
import time

from riwoa.errors import ControlError, DaemonUnavailableError, RiwoaError
from riwoa.files.ownership import same_place
from riwoa.parsing import MOST_JSON_BYTES, parse_json_object
from riwoa.paths import connect
from riwoa.service.status_check import checked_status
from riwoa.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from riwoa.paths import StatePaths
    from riwoa.service.status_object import StatusObject


class SilentError(RiwoaError):
    """A process listens on the control socket but gives no proper answer in time."""

    exit_code = DaemonUnavailableError.exit_code


def ask(paths: StatePaths, verb: str, timeout_s: float, by: str | None = None) -> dict[str, Any]:
    """Send one verb to the daemon and return its answer; ``by`` says for whom, for its log.

    Raises:
        DaemonUnavailableError: no daemon of this state listens.
        SilentError: one listens, but does not answer in time or not in JSON.
        ControlError: the daemon refused, or this user may not ask it; exit code as the daemon says.
    """
    request = {"verb": verb, **({} if by is None else {"by": by})}
    answer = _exchange(paths, {**request, "state": paths.directory}, timeout_s)
    served = answer.get("state")  # told by a daemon that was taken for another state's, or for another path to its own
    if answer.get("ok") is not True and isinstance(served, str):
        if not same_place(served, paths.directory):
            raise _absent(paths)
        answer = _exchange(paths, {**request, "state": served}, timeout_s)
    if answer.get("ok") is not True:
        raise _refusal(answer)
    return answer


def _exchange(paths: StatePaths, request: dict[str, str], timeout_s: float) -> dict[str, Any]:
    """Send one request and return the answer, a refusal too.

    Raises:
        DaemonUnavailableError, SilentError, ControlError: as ``ask``, but for a refusal.
    """
    name = paths.socket_name
    try:
        os.stat(name)  # spares the import of socket where no daemon runs
        client = connect(name, timeout_s)
    except PermissionError:
        raise ControlError(f"not allowed to talk to the daemon at {name}; run as its user or group") from None
    except (TimeoutError, BlockingIOError):  # so many wait for it that no more may
        raise SilentError(f"the daemon at {name} does not answer; see its log") from None
    except OSError:
        raise _absent(paths) from None
    with client:
        try:
            client.sendall(json.dumps(request).encode() + b"\n")
            return parse_json_object(_line(client, timeout_s))
        except (OSError, ValueError):
            verb = request["verb"]
            raise SilentError(f"the daemon at {name} gave no answer to {verb!r} within {timeout_s:g} s") from None


def ask_status(paths: StatePaths, timeout_s: float) -> StatusObject:
    """The daemon's status object, checked.

    Raises:
        DaemonUnavailableError, SilentError, ControlError: as ``ask``; also SilentError for an answer without a status.
    """
    status = checked_status(ask(paths, "status", timeout_s).get("status"))
    if status is None:
        raise SilentError(f"the daemon at {paths.socket_name} answers, but with no status; is it another version?")
    return status


def _line(client: Any, timeout_s: float) -> bytes:
    """The line that the daemon answers, as much of it as comes in time, even if it comes in drops."""
    found = bytearray()
    end_s = time.monotonic() + timeout_s
    while not found.endswith(b"\n") and len(found) <= MOST_JSON_BYTES:
        client.settimeout(max(1e-3, end_s - time.monotonic()))
        piece = client.recv(65536)
        if not piece:
            break
        found += piece
    return bytes(found)


def _absent(paths: StatePaths) -> DaemonUnavailableError:
    return DaemonUnavailableError(
        f"no daemon runs on {paths.directory}; start one with `riwoad --state {paths.directory}` (or make run)"
    )


def _refusal(answer: dict[str, Any]) -> RiwoaError:
    reason, code = answer.get("error"), answer.get("exit_code")
    told = isinstance(reason, str) and reason
    error = ControlError(printable(reason) if told else "the daemon refused without a reason; see its log")
    error.exit_code = code if isinstance(code, int) and 0 < code < 256 else error.exit_code
    return error
