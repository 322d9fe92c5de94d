"""``riwoactl watch``: the search on one screen, drawn again every second; a line now and then where that cannot be."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from riwoa.console.chart import XY, Axis, beside, chart, steps
from riwoa.console.terminal import Terminal, fit
from riwoa.ctl import Options
from riwoa.ctl.command import Parser
from riwoa.ctl.events import event_words
from riwoa.ctl.screen import screen_columns
from riwoa.ctl.status import collect, exit_code
from riwoa.ctl.status_text import render
from riwoa.paths import StatePaths, client_state
from riwoa.service.foreground import worker_line
from riwoa.service.status import one_line
from riwoa.service.status_object import StatusObject
from riwoa.text import printable
from riwoa_storage.errors import StorageError
from riwoa_storage.history import Point
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """The search on one screen: how it stands, the best so far over the evaluations, accuracy against
latency of everything it has looked at, the workers, and what happened last. q or Ctrl-C leaves; the daemon goes on.
In a pipe, or on a terminal that cannot draw, it prints a line when something changed."""
_PLAIN_EVERY_S = 10.0
_MOST_COLUMNS = 120  # of a picture that is printed where nobody tells the width
_WIDE = 100  # columns, from which on two pictures stand side by side
_PICTURE_ROWS = 9
_EVENTS = 3
_SHOWN_SHARE = 0.9  # of the accuracies, from the best down: the worst would flatten the picture


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Show until left, or until the daemon has ended; the exit code is that of `riwoactl status`."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two pictures (default: 1)")
    parser.add_argument("--once", action="store_true", help="one picture, and leave")
    given = parser.parse_args(arguments)
    if not 0.1 <= given.every <= 3600:
        parser.error("--every takes 0.1 to 3600 seconds")
    paths = client_state(options.state)
    seen = Seen(paths.journal)
    if given.once or options.json:
        seen.look()
        print("\n".join(screen(collect(paths), seen, min(_MOST_COLUMNS, screen_columns()), 48, plain=_is_plain())))
        return 0
    if Terminal.of(sys.stdout).redraws:
        return _watch(paths, seen, given.every)
    return _tell(paths, max(given.every, _PLAIN_EVERY_S))


def _is_plain() -> bool:
    """Whether standard output can hold no Braille."""
    return not (sys.stdout.encoding or "").lower().startswith("utf")


# -- what is looked at -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """What the journal's latest run has come to, read on from where it was left.

    Attributes:
        journal: its file.
        best: evaluations so far and the best accuracy by then, whenever that changed.
        clouds: latency and accuracy of everything evaluated.
        events: the last, in words.
    """

    journal: Path
    run_id: int | None = None
    generation: int = 0  # the next to read
    evaluations: int = 0
    fitness: float = float("-inf")
    best: list[XY] = field(default_factory=list)
    clouds: list[XY] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Read what is new; a journal that is not there, or cannot be read now, says nothing."""
        with suppress(StorageError), JournalReader(self.journal) as reader:
            run = reader.latest_run()
            if run is None:
                return
            if run.run_id != self.run_id:
                self.run_id, self.generation, self.evaluations, self.fitness = run.run_id, 0, 0, float("-inf")
                self.best, self.clouds = [], []
            for point in reader.history.points(run.run_id, start=self.generation):
                self._take(point)
            newest = reader.history.events(run_id=run.run_id, newest=_EVENTS)
            self.events = [
                f"{time.strftime('%H:%M:%S', time.localtime(e.event.created_unix_s))} {e.kind}  {event_words(e)}"
                for e in newest
            ]

    def _take(self, point: Point) -> None:
        self.generation = max(self.generation, point.generation + 1)
        if point.status != "ok" or point.accuracy is None:
            return
        self.evaluations += not point.cache_hit
        if point.latency_ms:
            self.clouds.append((point.latency_ms, point.accuracy))
        if point.fitness is not None and point.fitness > self.fitness:
            self.fitness = point.fitness
            self.best.append((self.evaluations, point.accuracy))


# -- what is shown -----------------------------------------------------------------------------------------------------


def screen(status: StatusObject, seen: Seen, columns: int, rows: int, *, plain: bool = False) -> list[str]:
    """The lines of one picture, at most ``rows`` of them and none longer than ``columns``."""
    lines = render(status, columns=columns).splitlines()
    below = [f"  {worker_line(w)}" for w in status.get("workers") or []]
    below += [f"  {printable(event)}" for event in seen.events]
    room = rows - len(lines) - len(below) - 1
    run = status.get("run")
    target_ms = run.get("target_ms") if run else None
    wide = columns // 2 - 2 if columns >= _WIDE else columns
    best, cloud = _best_over_time(seen, wide, plain=plain), _cloud(seen, target_ms, wide, plain=plain)
    if columns >= _WIDE and room > _PICTURE_ROWS:
        lines += ["", *beside(best, cloud, columns // 2)]
    else:
        for picture in (best, cloud):
            if picture and room > len(picture):
                lines += ["", *picture]
                room -= len(picture) + 1
    lines += ["", *below] if below else []
    return [fit(line, columns) for line in lines[:rows]]


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _best_over_time(seen: Seen, columns: int, *, plain: bool) -> list[str]:
    if not seen.best:
        return []
    x = Axis(0, seen.evaluations, lambda n: f"{n:,.0f} evaluations" if n else "0")
    y = _of_interest([accuracy for _, accuracy in seen.best])
    lines = chart(steps(seen.best, x, columns), x, y, columns, _PICTURE_ROWS - 1, plain=plain)
    return ["best so far", *lines] if lines else []


def _cloud(seen: Seen, target_ms: float | None, columns: int, *, plain: bool) -> list[str]:
    if not seen.clouds:
        return []
    latencies = [ms for ms, _ in seen.clouds]
    x = Axis(min(latencies), max(*latencies, target_ms or 0.0), lambda ms: f"{ms:.3g} ms")
    y = _of_interest([accuracy for _, accuracy in seen.clouds])
    lines = chart(seen.clouds, x, y, columns, _PICTURE_ROWS - 1, mark_x=target_ms, plain=plain)
    return ["accuracy against latency" + (f", target {target_ms:.3g} ms" if target_ms else ""), *lines] if lines else []


def _of_interest(accuracies: list[float]) -> Axis:
    """From the best down to what most of them reach."""
    ordered = sorted(accuracies, reverse=True)
    low = ordered[min(len(ordered) - 1, int(_SHOWN_SHARE * len(ordered)))]
    return Axis(low, ordered[0], _percent)


# -- how it is shown ---------------------------------------------------------------------------------------------------


def _watch(paths: StatePaths, seen: Seen, every_s: float) -> int:
    """Draw until somebody leaves; what stood on the terminal comes back, and the last status below it."""
    status = collect(paths)
    with suppress(KeyboardInterrupt), _own_screen() as left:
        while True:
            seen.look()
            terminal = Terminal.of(sys.stdout)
            lines = screen(status, seen, terminal.columns - 1, terminal.rows - 1, plain=_is_plain())
            sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
            sys.stdout.flush()
            if left(every_s):
                break
            status = collect(paths)
    print(render(status, columns=Terminal.of(sys.stdout).columns))
    return exit_code(status["state"])


@contextmanager
def _own_screen() -> Iterator[Callable[[float], bool]]:
    """The terminal's other screen without a cursor, and what waits for seconds and tells whether somebody pressed q."""
    before = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        if before is not None:
            tty.setcbreak(sys.stdin)
        yield _waits_for_q if before is not None else _waits
    finally:
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _waits_for_q(seconds: float) -> bool:
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left_s)[0] and sys.stdin.read(1) in ("q", "Q", "\x1b", ""):
            return True
    return False


def _waits(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _tell(paths: StatePaths, every_s: float) -> int:
    """Print a line whenever it changed, until the daemon has ended."""
    said = ""
    while True:
        status = collect(paths)
        line = f"{status['state']} · {one_line(status)}" if status["state"] != "none" else "no run here"
        if line != said:
            print(said := line, flush=True)
        if not status.get("alive"):
            return exit_code(status["state"])
        time.sleep(every_s)
