"""The page as a file: where it lies, and how it gets there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from riwoa.export import made_export
from riwoa.files.ownership import begins_with, output_file, unwritable
from riwoa.paths import StatePaths
from riwoa.report.page import START, render
from riwoa.report.reading import read_report
from riwoa_storage.durable import replace_durably

NAME = "report.html"


def report_place(paths: StatePaths) -> Path:
    """Where a state directory's report lies: with the winner's files, or beside the journal where there are none.

    A directory that holds a report alone would not be taken for an export, and could not become one.
    """
    return (paths.export if made_export(paths.export) is not None else paths.journal.parent) / NAME


def write_file(out: Path, page: str) -> Path:
    """Write a page, replacing an older one; where it lies now.

    Raises:
        UsageError: something lies there that is no report.
        StateDirectoryError, FullDiskError: it cannot be written.
    """
    place = output_file(out, "a report", partial(begins_with, start=START.encode()))
    try:
        replace_durably(place, page.encode())
    except OSError as error:
        raise unwritable(out, error, "name another with --out") from None
    return place


def write_latest(paths: StatePaths) -> Path:
    """Write the report of the latest run where it belongs; where it lies now.

    Raises:
        RiwoaError, StorageError: it cannot be read or written.
    """
    report = read_report(paths.journal, paths.latency_table)
    return write_file(report_place(paths), render(report))
