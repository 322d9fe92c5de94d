"""The foreground view: live progress on a terminal, a line now and then elsewhere, and the result at the end."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from riwoa.console.terminal import Terminal, fit
from riwoa.errors import DaemonUnavailableError
from riwoa.files.ownership import json_object
from riwoa.hardware.interval import advice, interval_of, measured_in, plus_minus
from riwoa.oracle.kinds import measures_device
from riwoa.parsing import MOST_JSON_BYTES, parse_json_object
from riwoa.paths import StatePaths, connect
from riwoa.run.front import Front, FrontNetwork, read_front
from riwoa.run.memory import words
from riwoa.service.ending import exported_digest
from riwoa.service.finetuning import finetuned, gain_line
from riwoa.service.front_view import (
    LEGEND,
    against_cell,
    fastest_line,
    front_line,
    int8_words,
    left_out_line,
    limit_lines,
    measured_cell,
    measured_words,
    target_table,
    test_cell,
    test_words,
    told_apart,
    validation_words,
    value_cell,
    value_head,
    within_words,
)
from riwoa.service.progress import steps
from riwoa.service.status import one_line
from riwoa.service.status_check import checked_status
from riwoa.service.status_object import StatusObject, WorkerStatus
from riwoa.text import broken, printable
from riwoa_storage.events import WinnerConfirmed
from riwoa_storage.reader import JournalReader

Look = Callable[[], StatusObject]

_TERMINAL_EVERY_S = 0.5
_PLAIN_EVERY_S = 10.0
_BAR_WIDTH = 28
_FRONT_COLUMNS = 80  # of the front with all that is known of a network
_MOST_CHARACTERS = 4_000  # of an architecture


def progress_lines(status: StatusObject) -> list[str]:
    """The status in a few lines."""
    said = one_line(status)
    lines = [f"riwoa · {said}" if said.startswith(status["state"]) else f"riwoa · {status['state']} · {said}"]
    run = status.get("run")
    if run:
        done, total, unit = steps(status)
        filled = min(_BAR_WIDTH, round(_BAR_WIDTH * done / max(1, total)))
        lines.append(f"  {'█' * filled}{'░' * (_BAR_WIDTH - filled)} {run['phase']} {done} of {total} {unit}")
        if run.get("memory"):
            lines.append(f"  began with {run['memory']}")
    lines += [f"  {worker_line(w)}" for w in status.get("workers") or []]
    proposals = status.get("proposals")
    if proposals:
        lines.append(
            f"  {proposals['model']}: {proposals['answered']} answered, {proposals['waiting']} batches waiting"
        )
    cognition = status.get("cognition")
    if cognition and cognition["state"] in ("geometric only", "model gone"):
        lines.append(f"  {cognition['state']}: {cognition.get('reason')}")
    config = status.get("config")
    if config and config.get("error"):
        lines.append(f"  config: {config['error']}")
    return lines


def worker_line(worker: WorkerStatus) -> str:
    """What one worker does, for how long, and how much it has done."""
    doing = worker["state"]
    if worker.get("job"):
        doing += f" for {worker.get('since_s') or 0:.1f} s"
    busy_share = worker.get("busy_share")
    share = f", {100 * busy_share:.0f} % busy" if busy_share is not None else ""
    return f"{worker['name']}: {doing}, {worker['done']} done{share}"


async def show_progress(look: Look) -> None:
    """Show the status until cancelled: in place on a terminal that can, otherwise a line when it changes."""
    in_place = Terminal.of(sys.stdout).redraws
    drawn, said, said_s = 0, "", -math.inf
    try:
        while True:
            status = look()
            if in_place:
                drawn = _redraw(progress_lines(status), drawn)
            else:
                line = progress_lines(status)[0]
                if line != said and time.monotonic() - said_s >= _PLAIN_EVERY_S:
                    said, said_s = line, time.monotonic()
                    print(line, flush=True)
            await asyncio.sleep(_TERMINAL_EVERY_S)
    finally:
        if in_place:
            _redraw([], drawn)


def _redraw(lines: list[str], drawn: int) -> int:
    """Replace the ``drawn`` lines above the cursor; returns how many stand there now."""
    if getattr(sys.stdout, "behind", False):  # stopped with Ctrl-S, or slow: old pictures must not pile up
        return drawn
    columns = Terminal.of(sys.stdout).columns
    up = f"\x1b[{drawn}F" if drawn else ""
    sys.stdout.write(up + "\x1b[0J" + "".join(fit(line, columns - 1) + "\n" for line in lines))
    sys.stdout.flush()
    return len(lines)


def show_end(status: StatusObject, paths: StatePaths) -> None:
    """Print the winner, the Pareto front and where the files lie; of a stopped run, how to go on."""
    if status["state"] != "finished":
        print(f"{status['state']}: {status.get('message') or one_line(status)}")
        print(f"journal: {paths.journal}")
        if status["state"] in ("stopped", "killed"):
            print(f"nothing committed is lost; this goes on: {status.get('go_on') or f'riwoad --state {paths.state}'}")
        return
    with JournalReader(paths.journal) as reader:
        run = reader.latest_run()
        assert run is not None, "a finished run is in the journal"
        last = reader.last_generation(run.run_id)
        front = read_front(reader, run)
        confirmed = [event.metrics for event in reader.events(run.run_id, WinnerConfirmed) if not event.error]
    assert last is not None
    assert front.leader is not None
    counters, repeats = last.counters, last.counters["cache_hits"]
    print(f"\nRun {run.run_id} finished after {last.generation + 1} generations: "
          f"{counters['evaluations']} evaluations, {repeats} repeat{'' if repeats == 1 else 's'} from the cache"
          + (f", {counters['dropped']} given up early." if counters.get("dropped") else "."))  # fmt: skip
    if memory := run.provenance.get("memory"):
        print(f"It began with {words(memory)}.")
    measured = measures_device(str(run.provenance.get("oracle", {}).get("kind")))
    used = paths.latency_table, run.provenance.get("latency_table_sha256")
    interval = interval_of(*used) if measured else None
    by = f"this device's table{measured_in(*used)}" if measured else "the given tables"
    _show_winner(front, confirmed[-1] if confirmed else None, interval, by)
    if (tuned := finetuned(paths.journal, run.run_id)) is not None:
        told = tuned.told["test" if "test" in tuned.told else "validation"]
        print(f"  fine-tuned   {gain_line(told)}")
    if targets := target_table(front):
        print("\nThe best for each target")
        for line in targets.splitlines():
            _say(f"  {line}")
    if front.leader["target_ms"] is not None:  # without latencies there is no front
        _show_front(front, interval)
    exported = exported_digest(paths) == last.digest
    if exported and (small := json_object(paths.export / "architecture.json").get("int8")):
        print(f"  in int8      {int8_words(small)}")
    print(f"\njournal  {paths.journal}")
    print(f"export   {paths.export if exported else 'not written; `riwoactl export` writes it'}")
    print(f"digest   {last.digest}")


def _show_winner(front: Front, confirmed: Mapping[str, Any] | None, interval: float | None, by: str) -> None:
    """Print what the winner is worth.

    ``confirmed``: its metrics in float32, where the search was not exact. ``interval``: the latency table's, if it was
    measured on this device. ``by``: what says the latency.
    """
    assert front.leader is not None
    metrics, target_ms = front.leader["metrics"], front.leader["target_ms"]
    within = within_words(front)
    print("\nWinner" + (f" ({within})" if within else ""))
    rows = [("test", test_words(front)), ("validation", validation_words(front, confirmed))]
    if target_ms is not None:
        aim = f" of {target_ms:.3f}" if limit_lines(front) else ""
        rows.append(("latency", f"{metrics['latency_ms']:.3f}{aim} ms an image{plus_minus(interval)}, by {by}"))
        if wide := advice(interval):
            rows.append(("", wide))
        if measured := measured_words(front):
            rows.append(("measured", measured))
        if front.finalists is not None and front.finalists.note:
            rows.append(("", front.finalists.note))
    rows += [("" if i else "limits", line) for i, line in enumerate(limit_lines(front))]
    if {"parameters", "macs"} <= metrics.keys():
        rows.append(("size", f"{metrics['parameters']:,} parameters, {metrics['macs']:,} multiply-adds"))
    rows.append(("architecture", architecture_line(front.leader["architecture"])))
    for name, value in rows:
        _say(f"  {name:<13}{value}", indent=15)


def _show_front(front: Front, interval: float | None) -> None:
    """Print the front; only what the test pictures tell apart is shown, on a narrow terminal only what they say."""
    shown, paired = told_apart(front), front.test is not None
    _say("\nPareto front, fastest first" + (f" ({LEGEND})" if paired else ""))
    tested, narrow = any(map(test_cell, shown)), _columns() < _FRONT_COLUMNS
    columns: list[tuple[str, int, Callable[[FrontNetwork], str]]] = []
    if any(map(measured_cell, shown)) and not narrow:
        columns.append(("measured", 10, measured_cell))
    if tested:
        columns.append(("test", 9, test_cell))
    if paired and not narrow:
        columns.append(("  less the winner", -19, lambda network: f"  {against_cell(network)}"))
    if not (tested and narrow):
        columns.append((value_head(front), 12, lambda network: value_cell(front, network)))
    width = len(plus_minus(interval))
    print(f"  {'latency':>8}   {'':{width}}{''.join(_cell(head, wide) for head, wide, _ in columns)}")
    for network in shown:
        latency = f"  {network.point.latency_ms:8.3f} ms{plus_minus(interval)}"
        cells = "".join(_cell(cell(network), wide) for _, wide, cell in columns)
        print(f"{latency}{cells}{'  <- winner' if network.is_winner else ''}")
    for told in (left_out_line(front, shown), fastest_line(front), front_line(front)):
        if told:
            _say(told)


def _cell(text: str, columns: int) -> str:
    """A text at the right of so many columns; at the left, where they are negative."""
    return f"{text:>{columns}}" if columns > 0 else f"{text:<{-columns}}"


def _columns() -> int:
    """Of the terminal; as good as endless where there is none, and lines stay whole."""
    return Terminal.of(sys.stdout).columns if sys.stdout.isatty() else sys.maxsize


def _say(line: str, indent: int = 0) -> None:
    """Print a line, broken where the terminal is narrower."""
    for part in line.split("\n"):
        print("\n".join(broken(part, _columns(), indent)))


def architecture_line(architecture: Mapping[str, Any]) -> str:
    """A MobileNetV3 subnet in one line: resolution, then each stage's blocks as kernel/expansion; any other as JSON."""
    try:
        line = _mobilenet_line(architecture)
    except (KeyError, TypeError):  # a table's genes may be called anything
        line = json.dumps(dict(architecture))
    return printable(line, _MOST_CHARACTERS)


def _mobilenet_line(architecture: Mapping[str, Any]) -> str:
    """The line of a MobileNetV3 subnet.

    Raises:
        KeyError, TypeError: it is no subnet of that space.
    """
    stages = []
    for s in range(1, 6):
        depth = architecture[f"stage{s}.depth"]
        blocks = (f"stage{s}.block{b}" for b in range(1, depth + 1))
        stages.append(" ".join(f"{architecture[b + '.kernel']}/{architecture[b + '.expand']}" for b in blocks))
    return f"{architecture['resolution']} px | " + " | ".join(stages) + "  (kernel/expansion)"


async def attach(paths: StatePaths) -> int:
    """Show the progress of a daemon that is alive already; Ctrl-C leaves it alone."""
    status = _ask(paths)
    who = f"a daemon (process {status.get('pid') or 'unknown'})"
    print(f"{who} already serves {paths.state}; showing its progress, Ctrl-C leaves it be")
    left = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, left.set)

    def look() -> StatusObject:
        nonlocal status
        status = _ask(paths)
        return status

    view = asyncio.create_task(show_progress(look), name="progress")
    waiting = asyncio.create_task(left.wait(), name="interrupt")
    await asyncio.wait((view, waiting), return_when=asyncio.FIRST_COMPLETED)
    if view.done() and not isinstance(view.exception(), DaemonUnavailableError):
        view.result()  # a failure of the view itself
    ended = view.done()
    for task in (view, waiting):
        task.cancel()
    await asyncio.wait((view, waiting))
    return _show_last(paths) if ended else 0


def _show_last(paths: StatePaths) -> int:
    """Print how the run stands once the daemon is gone; returns the exit code of `riwoactl status`."""
    last = checked_status(json_object(paths.status))
    if last is None:
        raise DaemonUnavailableError(f"the daemon that served {paths.state} is gone; start again to continue")
    if last["state"] not in ("finished", "unhealthy", "stopped"):
        last = {**last, "state": "killed", "message": "the daemon was killed while we looked on"}
    show_end(last, paths)
    return {"finished": 0, "unhealthy": 4}.get(last["state"], 3)


def _ask(paths: StatePaths) -> StatusObject:
    """The status of a live daemon.

    Raises:
        DaemonUnavailableError: it does not answer.
    """
    try:
        with connect(paths.socket, 2.0) as client, client.makefile("rwb") as stream:
            stream.write(json.dumps({"verb": "status", "state": paths.directory}).encode() + b"\n")
            stream.flush()
            answer = parse_json_object(stream.readline(MOST_JSON_BYTES))
        status = checked_status(answer.get("status"))
    except (OSError, ValueError):
        status = None
    if status is None:
        raise DaemonUnavailableError(f"the daemon that serves {paths.state} no longer answers; start again")
    return status
