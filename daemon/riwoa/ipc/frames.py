"""Frames between the daemon and its children: one JSON object a line, and the child's end of the pipes."""

from __future__ import annotations

import json
import queue
import signal
from collections.abc import Mapping
from typing import Any

from riwoa.ipc.child import die_with_parent, take_stdout, watch_stdin
from riwoa.parsing import parse_json_object

_MOST_FRAME_BYTES = 1 << 28  # the pipes have closer limits of their own


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """A message as one line of JSON.

    Raises:
        ValueError: it holds NaN or infinity, which the other side would refuse.
    """
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def decode_frame(line: bytes) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        ValueError: the line is not one JSON object.
    """
    return parse_json_object(line, _MOST_FRAME_BYTES)


class ParentPipe:
    """A child's standard input and output, for frames alone; making one ties the process to its parent."""

    def __init__(self) -> None:
        # systemd and terminals send these to all processes of the daemon; the daemon says when a child is to stop.
        # Heard and not heeded: one that is ignored would be ignored by every program that is started here, too.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        die_with_parent()
        self._frames = take_stdout()
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        watch_stdin(self._lines.put)

    def line(self) -> bytes:
        """The next line, as it came; waits for it."""
        return self._lines.get()

    def frame(self) -> dict[str, Any]:
        """The next frame; waits for it.

        Raises:
            ValueError: the line is no frame.
        """
        return decode_frame(self.line())

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a frame.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        self._frames.write(encode_frame(message))
        self._frames.flush()
