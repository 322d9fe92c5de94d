"""``riwoactl run``: ``riwoad --foreground``, by the configuration of the working directory where none is named."""

from __future__ import annotations

import os
import sys

from riwoa.ctl import Options
from riwoa.ctl.command import Parser
from riwoa.errors import UsageError

_CONFIG = "riwoa.toml"


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Become the daemon; it shows its progress, and the result at the end."""
    parser = Parser(
        "run",
        description="Searches until finished, with progress; killed and run again, it continues. Other options are "
        "riwoad's: riwoad --help.",
    )
    parser.add_argument("--config", metavar="FILE", help="default: $RIWOA_CONFIG, else ./riwoa.toml")
    given, others = parser.parse_known_args(arguments)
    config = given.config or os.environ.get("RIWOA_CONFIG") or _CONFIG
    if not os.path.lexists(config):
        raise UsageError(f"there is no {config} here; `riwoactl init FOLDER` writes one, --config FILE names another")
    state = [] if options.state is None else ["--state", options.state]
    command = [sys.executable, "-P", "-m", "riwoa.service.main", "--foreground", "--config", config, *state, *others]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)
