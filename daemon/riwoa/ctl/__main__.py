"""``python -m riwoa.ctl``, where the console script is not installed; with ``--child`` it ends with its parent."""

import sys

from riwoa.ctl import main

arguments = sys.argv[1:]
if arguments[:1] == ["--child"]:
    from riwoa.ipc.child import die_with_parent, watch_stdin

    die_with_parent()
    watch_stdin()
    del arguments[0]
sys.exit(main(arguments))
