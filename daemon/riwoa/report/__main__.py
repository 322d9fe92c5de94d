"""``python -m riwoa.report DIRECTORY``: the daemon's child, which writes a state directory's report."""

from __future__ import annotations

import sys
from pathlib import Path

from riwoa.errors import RiwoaError
from riwoa.files.ownership import deny_writing_to_others
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.paths import StatePaths
from riwoa.report.writing import write_latest
from riwoa_storage.errors import StorageError


def main(arguments: list[str]) -> int:
    """Write it; the exit code."""
    die_with_parent()
    watch_stdin()
    deny_writing_to_others()
    try:
        write_latest(StatePaths(Path(arguments[0])))
    except (RiwoaError, StorageError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
