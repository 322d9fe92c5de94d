"""Bring a published supernet to this machine: resumed where it broke off, checked, recorded, put in place whole."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from riwoa.errors import InputError
from riwoa.files.model_store import alone
from riwoa.files.ownership import unwritable
from riwoa.files.staging import claim
from riwoa.supernet.published import PUBLISHED, Published, check_name, recorded_file, sha256_of
from riwoa_storage.durable import flush, replace_durably

MOST_BYTES = 512 * 2**20  # the published ones take some 30 to 60 MB
_CHUNK_BYTES = 2**18
_TIMEOUT_S = 60.0  # without a byte

Say = Callable[[str], None]
Report = Callable[[int, int | None], None]  # bytes that are here, bytes of the whole where that is known


def pull(
    name: str,
    say: Say,
    *,
    url: str | None = None,
    sha256: str | None = None,
    check: Callable[[Path, Published], None],
    report: Report = lambda done, total: None,
) -> Path:
    """The file of a published supernet, fetched if it is not here yet; interrupted and called again, it continues.

    Args:
        name: as in ``ofa.model_zoo``.
        say: told what happens, a line at a time.
        url: another place that has the same file.
        sha256: what the file must be, where the caller knows; else its hash is recorded and trusted from then on.
        check: raises an InputError unless the file is that supernet; before anything is recorded.
        report: told how far it is.

    Raises:
        InputError: no such supernet, it cannot be had, or is not what it should be.
        StateDirectoryError, FullDiskError: its directory cannot be written.
    """
    net = _named(name)
    try:
        net.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(net.path.parent, say):
            if not net.path.is_file():
                _fetch(net, url or net.url, sha256, say, check, report)
    except OSError as error:
        raise unwritable(net.path.parent, error, "set RIWOA_MODELS") from None
    if sha256 is not None and sha256_of(net.path) != sha256:
        raise InputError(f"{net.path} has another SHA-256 than {sha256}; remove it and pull again")
    return net.path


def _named(name: str) -> Published:
    if name in PUBLISHED:
        return PUBLISHED[name]
    try:
        check_name(name)
    except ValueError as error:
        raise InputError(f"cannot pull {name}: should be {error}") from None
    raise InputError(f"there is no published supernet {name!r}; there are {', '.join(PUBLISHED)}")


def _fetch(
    net: Published, url: str, sha256: str | None, say: Say, check: Callable[[Path, Published], None], report: Report
) -> None:
    unfinished = net.path.with_name(f".{net.name}.partial")
    claim(unfinished)
    partial = unfinished / net.path.name
    say(f"downloading {net.name} from {url}")
    download(url, partial, report)
    found = sha256_of(partial)
    if sha256 not in (None, found):
        shutil.rmtree(unfinished)
        raise InputError(f"{url} gave a file of SHA-256 {found}, not {sha256}; is it another version?")
    try:
        check(partial, net)
    except InputError as error:
        shutil.rmtree(unfinished)
        raise InputError(f"{url} gave no such supernet: {error}") from None
    flush(partial)
    # The record first: a file in place without one would be trusted whatever became of it.
    replace_durably(recorded_file(net.path), f"{found}  {net.path.name}\n".encode())
    partial.replace(net.path)
    flush(net.path.parent)
    shutil.rmtree(unfinished, ignore_errors=True)
    say(f"SHA-256 {found}, recorded in {recorded_file(net.path).name} and verified whenever it is loaded")


# -- over HTTP ---------------------------------------------------------------------------------------------------------


def download(url: str, out: Path, report: Report) -> None:
    """Fetch into ``out``, continuing what is there if the server still has the same file.

    Raises:
        InputError: the address is no HTTP address, or the server gives no whole file; what came is kept.
        OSError: ``out`` cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url} is no address of a file; it should begin with https://")
    tag_file = out.with_name(f"{out.name}.tag")
    here = out.stat().st_size if out.is_file() and tag_file.is_file() else 0
    request = urllib.request.Request(url)
    if here:
        request.add_header("Range", f"bytes={here}-")
        request.add_header("If-Range", tag_file.read_text(encoding="latin-1"))
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            out.unlink()  # it is no shorter than the whole: of another file
            download(url, out, report)
            return
        raise InputError(
            f"cannot download {url} ({_words(error)}); check the connection and pull again, or fetch the file "
            "elsewhere and name its path in oracle.supernet.checkpoint"
        ) from None
    with response:
        continued = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = here if continued else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        if total is not None and total > MOST_BYTES:
            raise InputError(f"{url} has {total >> 20} MiB, which is no supernet of OFA's")
        _remember_tag(tag_file, response.headers.get("ETag"))
        with out.open("ab" if continued else "wb") as stream:
            arrived = _copy(response, stream, start, total, url, report)
    if total is not None and arrived < total:
        raise InputError(f"{url} broke off after {arrived:,} of {total:,} bytes; pull again, it continues there")
    tag_file.unlink(missing_ok=True)


def _copy(response: IO[bytes], stream: IO[bytes], start: int, total: int | None, url: str, report: Report) -> int:
    arrived = start
    while chunk := _next_chunk(response):
        stream.write(chunk)
        arrived += len(chunk)
        if arrived > MOST_BYTES:
            raise InputError(f"{url} does not end after {MOST_BYTES >> 20} MiB, which is no supernet of OFA's")
        report(arrived, total)
    return arrived


def _next_chunk(response: IO[bytes]) -> bytes:
    """The next bytes of a download; empty at its end and where the connection breaks off, which the length tells."""
    with contextlib.suppress(http.client.HTTPException, TimeoutError, ConnectionError):
        return response.read(_CHUNK_BYTES)
    return b""


def _remember_tag(tag_file: Path, tag: str | None) -> None:
    """Keep a strong tag beside the partial file: only that says that a continued download has the same bytes."""
    if tag is not None and not tag.startswith("W/") and len(tag) < 1024 and tag.isascii() and tag.isprintable():
        tag_file.write_text(tag, encoding="latin-1")
    else:
        tag_file.unlink(missing_ok=True)


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    return (
        os.strerror(reason.errno) if isinstance(reason, OSError) and reason.errno and reason.errno > 0 else str(reason)
    )
