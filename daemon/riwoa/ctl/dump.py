"""``riwoactl dump``: every candidate of a run for other programs, as CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser
from riwoa.ctl.past import add_run, chosen, opened
from riwoa.errors import InputError, UsageError
from riwoa.files.ownership import unwritable
from riwoa_storage.durable import replace_durably
from riwoa_storage.flat import COLUMNS
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """Every candidate of a run, a row each, ascending: where it stands, its name, who made it of what, its
metrics (metric.NAME) and its genes (gene.NAME, empty where one is not active). --csv and --parquet name a file; without
one, CSV goes to standard output. --json alone prints one object. `riwoactl verify` checks what this only reads."""
_ROWS_AT_ONCE = 4_096
_PARQUET = "--parquet needs pyarrow, which is not installed here: pip install pyarrow, or take --csv"


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Write the candidates."""
    parser = Parser(verb, description=_DESCRIPTION)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", nargs="?", const="-", metavar="FILE", help="CSV, UTF-8 (default: to standard output)")
    form.add_argument("--parquet", metavar="FILE", help="Parquet, if pyarrow is installed")
    add_run(parser)
    given = parser.parse_args(arguments)
    if given.parquet in ("-", ""):
        raise UsageError("--parquet needs the name of a file: Parquet cannot be written to a stream")
    with opened(options) as (reader, _):
        run_id = chosen(reader, given.run).record.run_id
        columns, rows = _rows(reader, run_id)
        if given.parquet is not None:
            file, count = given.parquet, _write_parquet(Path(given.parquet), columns, rows)
        elif given.csv in (None, "-"):
            _print(columns, rows, run_id, as_json=options.json)
            return 0
        else:
            file, count = given.csv, _write_csv(Path(given.csv), columns, rows)
    told = {"run_id": run_id, "file": os.path.abspath(file), "rows": count, "columns": len(columns)}
    print(json.dumps(told) if options.json else f"wrote {count:,} candidates of run {run_id} to {told['file']}")
    return 0


def _rows(reader: JournalReader, run_id: int) -> tuple[list[str], Iterator[list[Any]]]:
    """The columns, and a row each candidate."""
    plain = list(COLUMNS)
    metrics, genes = reader.flat.metric_names(run_id), reader.flat.gene_names(run_id)
    columns = [*plain, *(f"metric.{name}" for name in metrics), *(f"gene.{name}" for name in genes)]

    def rows() -> Iterator[list[Any]]:
        for values, measured, architecture in reader.flat.rows(run_id):
            yield [*values, *map(measured.get, metrics), *map(architecture.get, genes)]

    return columns, rows()


def _print(columns: Sequence[str], rows: Iterator[list[Any]], run_id: int, *, as_json: bool) -> None:
    if not as_json:
        _feed_csv(sys.stdout, columns, rows)
        return
    print(f'{{"run_id": {run_id}, "candidates": [', end="")
    for number, row in enumerate(rows):
        print(", " if number else "", json.dumps(dict(zip(columns, row, strict=True))), sep="", end="")
    print("]}")


def _feed_csv(stream: Any, columns: Sequence[str], rows: Iterator[list[Any]]) -> int:
    count, page = 0, io.StringIO()
    write = csv.writer(page, lineterminator="\n")
    write.writerow(columns)
    for row in rows:
        write.writerow(row)
        count += 1
        if count % _ROWS_AT_ONCE == 0:
            stream.write(page.getvalue())
            page.seek(0)
            page.truncate()
    stream.write(page.getvalue())
    return count


def _write_csv(file: Path, columns: Sequence[str], rows: Iterator[list[Any]]) -> int:
    page = io.StringIO()
    count = _feed_csv(page, columns, rows)
    try:
        replace_durably(file, page.getvalue().encode())
    except OSError as error:
        raise unwritable(file, error, "name another file") from None
    return count


def _write_parquet(file: Path, columns: Sequence[str], rows: Iterator[list[Any]]) -> int:
    """Write all rows; a column whose values are of several kinds is written as text.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(_PARQUET) from None
    table = list(rows)
    sink = io.BytesIO()
    named = {name: _column([row[at] for row in table]) for at, name in enumerate(columns)}
    pyarrow.parquet.write_table(pyarrow.table(named), sink)
    try:
        replace_durably(file, sink.getvalue())
    except OSError as error:
        raise unwritable(file, error, "name another file") from None
    return len(table)


def _column(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) < 2:
        return [float(value) if isinstance(value, int) else value for value in values] if len(kinds) > 1 else values
    return [None if value is None else str(value) for value in values]
