"""Reads JSON, TOML and text from outside within bounds of size, depth and time, or raises one ValueError.

Files that people edit, answers of processes, and what another version left behind are no more trusted than the network
is. ``riwoactl status`` imports this, so it imports nothing that is slow to start.
"""

from __future__ import annotations

import json
import os
import re
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_JSON_BYTES = 1 << 24
MOST_JSON_DEPTH = 64  # ours has five levels
MOST_TOML_BYTES = 1 << 18  # a complete configuration, each key described, has a twentieth of it
_MOST_DOTS = 100  # in a word: tomllib takes time in the square of a key's parts
_SILENCE_S = 10.0  # a pipe's writer may think for so long
# The closing quote may be missing: a string that never ends must not be tried again from each quote within it.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def parse_json(text: str | bytes, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is too long, nested too deeply, or no JSON; the message is one short line.
    """
    if len(text) > most_bytes:
        raise ValueError(f"longer than {most_bytes} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode()
        if _depth_beyond(text, MOST_JSON_DEPTH):
            raise ValueError(f"nested deeper than {MOST_JSON_DEPTH} levels")
        return json.loads(text)
    except RecursionError:  # whoever calls may stand deep already
        raise ValueError("nested too deeply") from None


def parse_json_object(text: str | bytes, most_bytes: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """The object of a JSON text.

    Raises:
        ValueError: as ``parse_json``, or it is another kind of value.
    """
    found = parse_json(text, most_bytes)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _depth_beyond(text: str, most: int) -> bool:
    if text.count("[") + text.count("{") <= most:  # the common case is spared the scan
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth > most:
                return True
        elif first in "]}":
            depth -= 1
    return False


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text, in bounded time.

    Raises:
        ValueError: it is too long, not TOML, or holds a value beyond all sense; the message is one short line.
    """
    import tomllib

    if len(text) > MOST_TOML_BYTES:
        raise ValueError(f"longer than {MOST_TOML_BYTES} characters; a configuration never is")
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS and not line.lstrip().startswith("#") and _dotted_beyond(line, _MOST_DOTS):
            raise ValueError(f"line {number} has a key of more than {_MOST_DOTS} parts; keys have two, section.key")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not valid TOML: {error}") from None
    except RecursionError:
        raise ValueError("not valid TOML: nested too deeply") from None
    except Exception as error:  # integers of thousands of digits, say: whatever it is, this text is the reason
        raise ValueError(f"not valid TOML: {error}") from None


def _dotted_beyond(line: str, most: int) -> bool:
    """Whether a line may hold a key of more than ``most`` parts, with or without blanks around the dots.

    Words are judged one by one, since numbers in a list have a dot each.
    """
    words = re.sub(r"[ \t]*\.[ \t]*", ".", line)
    return any(word.count(".") > most for word in re.findall(r"[^\s,=\[\]{}]+", words))


def decode_text(content: bytes) -> str:
    """The text that bytes in UTF-8 hold, with or without a byte-order mark.

    Raises:
        ValueError: it is in another encoding; says which, or in which line it ceases to be UTF-8, and what to do.
    """
    if content.startswith(_UTF_16_OR_32) or content[:2].count(0) == 1:
        raise ValueError("is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8 (line {line}, byte 0x{content[error.start]:02x}); save it as UTF-8") from None


def read_once(path: str | os.PathLike[str], most_bytes: int) -> tuple[bytes, bool]:
    """The bytes of a file, and whether it was a pipe, whose content is gone now.

    Never waits for a writer that is not there, nor reads what does not end.

    Raises:
        OSError: it cannot be opened or read.
        ValueError: it is a directory, a device, a pipe that nobody writes to, or too long.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        kind = os.fstat(descriptor)
        if stat.S_ISDIR(kind.st_mode):
            raise ValueError("is a directory, not a file")
        piped = stat.S_ISFIFO(kind.st_mode)
        if not piped and not stat.S_ISREG(kind.st_mode) and not _is_null(kind):
            raise ValueError("is a device, not a file")
        content = _read_up_to(descriptor, most_bytes + 1)
        if len(content) > most_bytes:
            raise ValueError(f"is longer than {most_bytes} bytes")
        if piped and not content:
            raise ValueError("is a pipe that nobody writes to")
        return content, piped
    finally:
        os.close(descriptor)


def _is_null(found: os.stat_result) -> bool:
    """Whether it is /dev/null, which is how a shell names an empty file."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev


def _read_up_to(descriptor: int, most_bytes: int) -> bytes:
    found = b""
    while len(found) < most_bytes:
        try:
            piece = os.read(descriptor, most_bytes - len(found))
        except BlockingIOError:
            _await_writer(descriptor)
            continue
        if not piece:
            break
        found += piece
    return found


def _await_writer(descriptor: int) -> None:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(1000 * _SILENCE_S):
        raise ValueError(f"is a pipe whose writer says nothing for {_SILENCE_S:g} s")
