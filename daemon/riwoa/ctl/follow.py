"""``riwoactl follow``: tell MLflow, or Weights & Biases, of a search as it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.past import add_run, chosen, opened
from riwoa.paths import client_state
from riwoa.patience import Backoff
from riwoa.service.following import Follower
from riwoa.service.sinks import SinkError, opener
from riwoa.text import duration

_LOOK_EVERY_S = 5.0
_FIRST_WAIT_S = 5.0  # after a failure
_DESCRIPTION = """Tells a tracking server of every committed generation of a run, until that is over: the best so far,
evaluations and settings; at the end what the test pictures said. It reads the journal, and the search does not wait for
it. Ended and begun again it goes on. What fails is said in a line and tried again, ever less often. MLflow is found by
--uri or $MLFLOW_TRACKING_URI, Weights & Biases by `wandb login`; with $WANDB_MODE=offline it writes files."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Tell a sink of a run.

    Raises:
        SinkError: it could not be told, and was to be told once.
    """
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("sink", choices=("mlflow", "wandb"), help="who is told")
    add_run(parser)
    parser.add_argument("--project", default="riwoa", metavar="NAME",
                        help="MLflow's experiment, or the project of Weights & Biases (default: riwoa)")  # fmt: skip
    parser.add_argument("--uri", metavar="URI", help="MLflow's server or store (default: $MLFLOW_TRACKING_URI)")
    parser.add_argument("--once", action="store_true", help="tell what is committed by now, and end")
    given = parser.parse_args(arguments)
    open_sink = opener(given.sink, given.project, given.uri, client_state(options.state).directory)
    with opened(options) as (reader, paths):
        run_id = chosen(reader, given.run).record.run_id

    def begin() -> Follower:
        return Follower(paths.journal, run_id, open_sink())

    told, is_over = follow(begin, once=given.once)
    ending = "; the run is over" if is_over else ""
    emit(options, {"run_id": run_id, "generations": told, "over": is_over}, f"told {told:,} generations{ending}")
    return 0


class Telling(Protocol):
    """Who tells of a journal, in a context.

    Attributes:
        told: generations, so far.
        is_over: whether nothing more will come.
    """

    told: int
    is_over: bool

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...

    def look(self) -> bool:
        """Tell what is new; whether that was all. Raises ``SinkError`` where nobody takes it."""
        ...


def follow(begin: Callable[[], Telling], *, once: bool) -> tuple[int, bool]:
    """Tell all there is, and what comes, until it is over; how many generations, and whether it is.

    Raises:
        SinkError: nobody took it, and it was to be told once.
    """
    backoff = Backoff()
    while True:
        began_s = time.monotonic()
        try:
            with begin() as telling:
                while not telling.look() and not once:
                    time.sleep(_LOOK_EVERY_S)
            return telling.told, telling.is_over
        except SinkError as error:
            if once:
                raise
            wait_s = backoff.wait_s(time.monotonic() - began_s, _FIRST_WAIT_S)
            print(f"riwoactl: {error}; tried again in {duration(wait_s)}", file=sys.stderr)
            time.sleep(wait_s)
