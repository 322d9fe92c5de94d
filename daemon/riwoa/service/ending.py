"""The end of a run: its winner confirmed, judged on test pictures, exported, on request trained on; and the report."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from riwoa.errors import RiwoaError
from riwoa.files.ownership import json_object
from riwoa.hardware.interval import interval_of
from riwoa.ipc.child import child_command, child_environment
from riwoa.log import get_logger
from riwoa.oracle.backend import make_pool
from riwoa.oracle.kind import Problem
from riwoa.oracle.kinds import kind_named
from riwoa.oracle.protocol import OracleSpec
from riwoa.oracle.workers import pool_settings
from riwoa.paths import StatePaths
from riwoa.patience import patiently
from riwoa.run.conductor import Conductor
from riwoa.run.evaluations import EvaluationRequest, Evaluations
from riwoa.run.front import target_winners
from riwoa.run.journal import RunJournal
from riwoa.run.judging import Judges, judge_networks, unjudged
from riwoa.run.scan import Place
from riwoa.service.countdown import Countdown
from riwoa.service.finalists import EndedSearch, time_finalists
from riwoa.service.finetuning import finetuned, usual_threads
from riwoa.service.logs import log_export_line
from riwoa.service.parts import DaemonParts
from riwoa.service.tasks import first_error
from riwoa.service.trainings import Trainings
from riwoa.text import printable
from riwoa_storage.events import NetworkJudged, WinnerConfirmed
from riwoa_storage.records import Json
from riwoa_storage.writer import JournalWriter

_log = get_logger("service")
_MOST_REASON_CHARACTERS = 500
_MOST_REPORT_S = 60
NO_TEST_PICTURES = "there are no pictures that chose nothing"


async def confirm_winner(
    parts: DaemonParts, journal: JournalWriter, run_id: int, exact_spec: OracleSpec | None, winner: Json | None
) -> None:
    """Evaluate the winner once more in float32, which is what gets exported, and journal that too.

    A search in bfloat16 ranks the same but may read an image or two differently than the exported model does: said
    where no test pictures tell what that is worth. Nothing happens where the search was exact already (``exact_spec``
    is None), or has no winner.
    """
    if exact_spec is None or winner is None:
        return
    parts.board.change(lambda shown: shown.saying("confirming the winner in float32"))
    settings = replace(pool_settings(parts.config.oracle), workers=1)
    async with make_pool(parts.config, exact_spec, settings) as pool:
        info = await pool.start()
        evaluations = Evaluations(pool, journal, parts.paths.journal, info.version, on_result=parts.progress.note)
        request = EvaluationRequest(winner["architecture_key"], winner["architecture"])
        (confirmed,) = await evaluations.evaluate([request])
    event = WinnerConfirmed(
        run_id=run_id,
        generation=winner["generation"],
        architecture_key=winner["architecture_key"],
        oracle_version=info.version,
        metrics=confirmed.metrics,
        error=confirmed.error,
    )
    await journal.put_event(event)


async def judge_front(parts: DaemonParts, journal: JournalWriter, spec: OracleSpec, conductor: Conductor) -> bool:
    """Judge the winner and the front on the test pictures, or journal why that cannot be; whether they were judged.

    Before a deadline the winner comes first, then what is nearest to it, for as long as the margin allows. What fails
    here takes nothing from what the search has found.

    Args:
        parts: of the daemon.
        journal: the writer.
        spec: the oracle that the search asked.
        conductor: at its end.
    """
    winner, run = conductor.leader, RunJournal(journal, parts.paths.journal, conductor.run_id)
    if winner is None:
        return False
    front = conductor.history.archive.front()
    others = [best for best in conductor.history.of_targets if best is not None]
    networks = await patiently(lambda: unjudged(run, winner, front, others))
    if not networks:
        return True

    countdown = Countdown()
    parts.board.sources.time_left_s = countdown.left_s

    def tell(done: int, total: int) -> None:
        parts.progress.note()
        countdown.told(done, total)
        parts.board.change(lambda shown: shown.saying(f"judging the front on the test pictures: {done} of {total}"))

    reason = None
    try:
        test_spec = await asyncio.to_thread(_test_spec, parts, spec)
        if test_spec is None:
            reason = NO_TEST_PICTURES
        else:
            judges = Judges(test_spec, pool_settings(parts.config.oracle), partial(make_pool, parts.config))
            await judge_networks(run, judges, networks, left_s=lambda: conductor.schedule.left_s, tell=tell)
    except* RiwoaError as failed:
        reason = str(first_error(failed))
    parts.board.sources.time_left_s = lambda: None
    if reason is not None:
        key = winner.individual.architecture_key
        await journal.put_event(NetworkJudged(run_id=run.run_id, architecture_key=key, error=reason))
        _log.info("front_not_judged", reason=reason)
    return reason is None


async def measured_winner(
    parts: DaemonParts, journal: JournalWriter, problem: Problem, conductor: Conductor
) -> Json | None:
    """The winner, once the finalists are timed in their runtime; None where the search has none.

    They are timed where the latencies are this device's own, and the configuration asks for it.
    """
    winner, most = conductor.leader, conductor.config.run.finalists
    if winner is None or most == 0 or problem.measured is None:
        return None if winner is None else winner.to_json()
    search = EndedSearch(
        RunJournal(journal, parts.paths.journal, conductor.run_id),
        winner,
        conductor.history.archive.front(),
        conductor.objective,
        interval_of(problem.measured, problem.latency_sha256),
        most,
        conductor.schedule.left_s,
    )

    countdown = Countdown()
    parts.board.sources.time_left_s = countdown.left_s

    def tell(words: str, done: int, total: int) -> None:
        parts.progress.note()
        countdown.told(done, total)
        parts.board.change(lambda shown: shown.saying(words))

    try:
        return await time_finalists(search, tell)
    finally:
        parts.board.sources.time_left_s = lambda: None


def _test_spec(parts: DaemonParts, spec: OracleSpec) -> OracleSpec | None:
    kind = kind_named(parts.config.oracle.kind)
    with kind.blamed("name its test pictures"):
        return kind.value.test_spec(spec)


async def export_winner(parts: DaemonParts) -> str | None:
    """Write the winner's files, if the configuration asks for them; of several devices each one's beside, too.

    Returns:
        What to tell people when they could not be written: the search is safe in the journal, and the files can be
        written at any time. None otherwise.
    """
    if not parts.config.run.export:
        return None
    parts.board.show("exporting")
    try:
        reason = await _export_in_child(parts.paths, parts.paths.export)
        _, targets = await patiently(lambda: target_winners(parts.paths.journal))
        for target in targets:
            if reason is None and target.place is not None:
                parts.board.show("exporting", f"the network for {target.name}")
                out = parts.paths.export.with_name(f"export-{target.name}")
                reason = await _export_in_child(parts.paths, out, target.place)
    except OSError as error:
        reason = str(error)
    if reason is None:
        return None
    _log.error("export_failed", reason=reason)
    return f"not exported: {reason}; `riwoactl export` tries again"


async def finetune_winner(parts: DaemonParts, due_unix_s: float | None = None) -> str | None:
    """Train the winner on, if the configuration asks for it, and write its files anew; continues what was begun.

    The files of before are there already: what fails here takes nothing away.

    Args:
        parts: of the daemon.
        due_unix_s: the deadline, at which the training ends with what it has; None without one.

    Returns:
        What to tell people where it was not done, or its result could not be exported; None otherwise.
    """
    epochs = parts.config.run.finetune_epochs
    if not epochs:
        return None

    def tell(event: dict[str, Any]) -> None:
        parts.progress.note()
        parts.board.sources.time_left_s = lambda: event["left_s"]
        parts.board.show(
            "training", f"fine-tuning the winner: step {event['done']} of {event['total']}, {event['words']}"
        )

    arguments = [str(parts.paths.journal), str(epochs)]
    if due_unix_s is not None and due_unix_s <= time.time():
        return "the deadline is reached before the fine-tuning; `riwoactl finetune` does it"
    try:
        if await asyncio.to_thread(finetuned, parts.paths.journal) is not None:
            return None
        parts.board.show("training", "fine-tuning the winner")
        trainings = Trainings(parts.pauses, due_unix_s)
        await trainings.run(
            "riwoa.service.finetuning", arguments, usual_threads(), "the fine-tuning of the winner", tell
        )
    except (RiwoaError, OSError) as error:
        _log.error("finetuning_failed", reason=str(error))
        return f"not fine-tuned: {error}; `riwoactl finetune` tries again"
    finally:
        parts.board.sources.time_left_s = lambda: None
    return await export_winner(parts)


async def _export_in_child(paths: StatePaths, out: Path, place: Place | None = None) -> str | None:
    """Why the files could not be written; None where they are. ``place``: of another network than the winner."""
    which = [] if place is None else ["{}/{}".format(*place)]
    code, lines = await _run_child("riwoa.export", str(paths.journal), str(out), *which)
    if code != 0:
        return _last_words(code, lines)
    for line in lines:
        log_export_line(printable(line))
    return None


async def report_run(parts: DaemonParts) -> None:
    """Write the report of the latest run beside its winner's files, if the configuration asks for those.

    In a process of its own, for so long: what fails here is one line in the log and takes nothing from the run.
    """
    if not parts.config.run.export:
        return
    parts.progress.note()
    parts.board.show("exporting", "writing the report")
    try:
        async with asyncio.timeout(_MOST_REPORT_S):
            code, lines = await _run_child("riwoa.report", parts.paths.directory)
        reason = None if code == 0 else _last_words(code, lines)
    except TimeoutError:
        reason = f"it was not done after {_MOST_REPORT_S} s"
    except OSError as error:
        reason = str(error)
    if reason is not None:
        _log.warning("report_not_written", reason=reason, message="`riwoactl report` writes it at any time")


async def _run_child(module: str, *arguments: str) -> tuple[int, list[str]]:
    """Exit code of a module that runs in a child process, and the lines that it wrote to standard error."""
    process = await asyncio.create_subprocess_exec(
        *child_command(module, *arguments),
        env=child_environment(1),
        stdin=asyncio.subprocess.PIPE,  # held open: its end is how the child learns that we are gone
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        stderr = await process.stderr.read()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return code, stderr.decode(errors="replace").strip().splitlines()


def _last_words(code: int, lines: list[str]) -> str:
    return lines[-1][-_MOST_REASON_CHARACTERS:] if lines else f"its process ended with {code}"


def exported_digest(paths: StatePaths) -> str | None:
    """Digest of the run whose winner lies in the export directory; None where there is none."""
    digest = json_object(paths.export / "provenance.json").get("digest")
    return digest if isinstance(digest, str) else None
