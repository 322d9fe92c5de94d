"""One table says what an operating system's error means."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from riwoa_storage.fault import LACKING, REFUSED, WAIT, fault, file_system, is_full, reason


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_left_is_waited_out_whoever_took_it(number: int) -> None:
    assert fault(OSError(number, "")) == WAIT
    assert is_full(OSError(number, ""))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EBUSY])
def test_what_passes_is_waited_out_and_is_no_full_disk(number: int) -> None:
    assert fault(OSError(number, "")) == WAIT
    assert not is_full(OSError(number, ""))


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL])
def test_what_a_file_system_cannot_do_is_lacking(number: int) -> None:
    assert fault(OSError(number, "")) == LACKING


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EIO, None])
def test_the_rest_is_refused(number: int | None) -> None:
    assert fault(OSError(number, "")) == REFUSED


def test_the_reason_names_the_file_system_that_a_path_is_on_even_if_it_does_not_exist() -> None:
    assert file_system("/proc/self/no/such/file") == ("proc", "/proc")
    assert (
        reason(OSError(errno.EROFS, "Read-only file system"), "/proc/x")
        == "Read-only file system, on the proc at /proc"
    )


def test_a_link_counts_as_where_it_leads(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert file_system(link / "self") == ("proc", "/proc")
