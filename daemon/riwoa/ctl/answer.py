"""``riwoactl answer``: the best network for any device, by its latency table, from what was evaluated for another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, milliseconds
from riwoa.ctl.past import add_run, chosen, in_force, opened
from riwoa.ctl.screen import facts, paragraph, table
from riwoa.errors import UsageError
from riwoa.hardware.interval import plus_minus
from riwoa.text import measured, named_measure, number, printable

if TYPE_CHECKING:
    from riwoa.config.schema import Config
    from riwoa.run.answer import Answer, Evaluations, Target
    from riwoa.service.candidate_view import RunView
    from riwoa_storage.history import PlacedIndividual
    from riwoa_storage.reader import JournalReader

_DESCRIPTION = """The best evaluated network within a time by any latency table of the space (of `riwoactl lut build` on
the other device), the best that a surrogate predicts, and how many evaluations would make it sure. Accuracies do not
depend on the device, so every evaluation of the run's oracle in the journal counts. With several tables also which
network serves which device. Nothing is written; the daemon need not run. riwoactl help latency tells more."""
_OWN = "this device's table"
_Z = 1.96  # of a 95 % interval


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print what each target gets.

    Raises:
        UsageError: there are not as many times as tables.
    """
    given = _parser(verb).parse_args(arguments)
    _check_counts(given.table, given.within)
    from riwoa.oracle.kinds import kind_named
    from riwoa.run.answer import Target, answer, read_evaluations

    with opened(options) as (reader, paths):
        record = chosen(reader, given.run).record
        config = in_force(reader, record)
        kind = kind_named(config.oracle.kind)
        asked = _asked(given.table, given.within, config, str(paths.latency_table))
        if any(file == str(paths.latency_table) for _, file, _ in asked) and not kind.value.measures_device:
            raise UsageError(f"a run of kind {kind.value.name} has no table of this device; name one: --table")
        found = read_evaluations(reader, record, config, alone=given.run is not None)
        with kind.blamed("read the latency table of another device"):
            targets = [Target(printable(name), kind.value.device_latency(file, config), ms) for name, file, ms in asked]
            known = kind.value.known_metrics(config)
            answers = [answer(found, target, known) for target in targets]
        pages = _Pages(reader, paths.latency_table, found)
        data = pages.to_json(answers)
        text = pages.one(answers[0]) if len(answers) == 1 else pages.fleet(answers)
    emit(options, data, text)
    return 0


def _check_counts(tables: Sequence[str], within_ms: Sequence[float]) -> None:
    """Refuse times that are not one for all tables, nor one each; without either they are those of the run's targets.

    Raises:
        UsageError: there are not as many times as tables.
    """
    count = max(1, len(tables))
    if tables and not within_ms:
        raise UsageError("riwoactl answer needs --within TIME, for example --within 8ms")
    if len(within_ms) not in (0, 1, count):
        named = f"{count} table{'s' if count > 1 else ''}"
        raise UsageError(f"--within is given {len(within_ms)} times for {named}: name one for all, or one each")


def _asked(tables: Sequence[str], within_ms: Sequence[float], config: Config, own: str) -> list[tuple[str, str, float]]:
    """Each target's name, the file of its latencies and its milliseconds.

    Args:
        tables: as named; none for this device's.
        within_ms: one for all of them, or one each; none for the targets that the run looked for.
        config: of the run.
        own: the file of this device's table.

    Raises:
        UsageError: no time is given, and the run has no targets.
    """
    if not within_ms:
        if not config.objective.targets:
            raise UsageError("riwoactl answer needs --within TIME, for example --within 8ms")
        return [(target.name, target.table or own, target.latency_ms) for target in config.objective.targets]
    named = _named(tables) or [(_OWN, own)]
    each_ms = list(within_ms) * (len(named) // len(within_ms))
    return [(name, file, ms) for (name, file), ms in zip(named, each_ms, strict=True)]


def _named(files: Sequence[str]) -> list[tuple[str, str]]:
    """What tables are called, beside their files: by the last part of their paths where that tells them apart."""
    short = [Path(file).name for file in files]
    names = short if 1 < len(files) == len(set(short)) else files
    return list(zip(names, files, strict=True))


def _parser(verb: str) -> Parser:
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="FILE",
        help=f"a latency table (default: {_OWN}); of a table's search FILE:COLUMN, of OFA's predictor a folder of its "
        "tables; several times for several devices",
    )
    parser.add_argument(
        "--within",
        action="append",
        default=[],
        type=milliseconds,
        metavar="TIME",
        help="the most that a network may take: 8ms, 0.5ms; one for all tables, or one each in their order (default: "
        "the targets of the run, where it has some)",
    )
    add_run(parser, "the latest, with all others of its oracle")
    return parser


class _Pages:
    """Answers in words and as JSON.

    Args:
        reader: of the journal.
        latency_table: of this device.
        found: what was evaluated.
    """

    def __init__(self, reader: JournalReader, latency_table: Path, found: Evaluations) -> None:
        self._reader = reader
        self._latency_table = latency_table
        self._found = found
        self._views: dict[int, RunView] = {}

    def _view(self, run_id: int) -> RunView:
        from riwoa.service.candidate_view import read_run_view

        if run_id not in self._views:
            self._views[run_id] = read_run_view(self._reader, chosen(self._reader, run_id), self._latency_table)
        return self._views[run_id]

    def _individual(self, row: int) -> tuple[RunView, PlacedIndividual]:
        run_id, place = self._found.places[row]
        individual = self._reader.history.individual(run_id, place)
        assert individual is not None  # it was just read
        return self._view(run_id), individual

    def _place(self, row: int) -> str:
        run_id, (generation, slot) = self._found.places[row]
        return f"{generation}/{slot}" if run_id == self._found.run.run_id else f"{run_id}/{generation}/{slot}"

    # -- in words --------------------------------------------------------------------------------------------------

    def one(self, answer: Answer) -> str:
        """One target."""
        target, best = answer.target, answer.best
        how = f" ({target.latency.measured_in})" if target.latency.measured_in else ""
        within = int(answer.within.sum())
        head = (
            f"Within {number(target.within_ms)} ms by {target.name}{how}, from {len(self._found):,} evaluated networks "
            f"of {self._runs()}, {within:,} of them within"
        )
        blocks = [paragraph(head, "  ", ""), self._best_words(answer), self._predicted_words(answer)]
        blocks.append(paragraph(f"to be sure: {self._effort_words(answer)}", "  ", ""))
        if best is not None:
            run_id, (generation, slot) = self._found.places[best]
            of = "" if run_id == self._reader.runs()[-1].run_id else f" --run {run_id}"
            blocks.append(f"`riwoactl export --arch {generation}/{slot}{of}` writes the best evaluated.")
        return "\n".join(blocks)

    def _runs(self) -> str:
        ids = self._found.run_ids
        named = ", ".join(map(str, ids)) if len(ids) <= 3 else f"{len(ids)} runs, {ids[0]} to {ids[-1]}"
        return f"run {named}" if len(ids) == 1 else f"runs {named}" if len(ids) <= 3 else named

    def _best_words(self, answer: Answer) -> str:
        from riwoa.service.candidate_view import test_words

        if answer.best is None:
            fastest = answer.latencies_ms.min()
            why = "none is within" if not self._found.limits else "none keeps that and the run's further limits"
            return paragraph(f"best evaluated: {why}; the fastest takes {fastest:.3f} ms", "  ", "")
        view, individual = self._individual(answer.best)
        metrics = individual.record.metrics
        test = view.test(individual.record.architecture_key)
        images = f" on {metrics['images']:,} images" if "images" in metrics else ""
        tries = f", the best of {int(answer.within.sum()):,} within"
        rows = [
            ("test", "" if test is None else test_words(test)),
            (
                self._head(),
                self._measured(answer.best) + _between(self._metric, *self._interval(answer.best)) + images + tries,
            ),
            ("latency", _latency_words(answer.target, float(answer.latencies_ms[answer.best]))),
        ]
        return f"best evaluated: {individual.name[:8]} ({self._place(answer.best)})\n{facts(rows)}"

    def _predicted_words(self, answer: Answer) -> str:
        from riwoa.run.prediction import FEWEST
        from riwoa.service.candidate_text import change_words, changes

        found = answer.prediction
        if found is None:
            count = len(self._found)
            why = f"{count} evaluations are too few, {FEWEST} are needed" if count < FEWEST else "nothing to learn from"
            return f"best predicted: none: {why}"
        row, architecture = answer.predicted_row, self._found.space.architecture(found.indices)
        where = "not evaluated yet" if row is None else f"evaluated ({self._place(row)})"
        if row is not None and row == answer.best:
            where = "the best evaluated itself"
        mean, low, high = self._predicted(answer)
        rows = [
            (self._head(), measured(self._metric, mean) + _between(self._metric, low, high)),
            ("latency", _latency_words(answer.target, answer.predicted_ms or 0.0)),
        ]
        if answer.best is not None and row != answer.best:
            changed = changes(self._found.architectures[answer.best], architecture)
            rows.append(("changed", change_words(changed)))
        if answer.unchecked:
            rows.append(
                ("note", f"whether it keeps the limits of {', '.join(answer.unchecked)} only an evaluation tells")
            )
        return f"best predicted: {where}\n{facts(rows)}"

    def _effort_words(self, answer: Answer) -> str:
        from riwoa.run.prediction import MOST_RIVALS

        found = answer.prediction.effort if answer.prediction is not None else None
        if found is None:
            return "not known: evaluate more" if answer.best is not None else "evaluate some within"
        if not found.rivals:
            return f"none of the {found.met:,} other networks within that the climbs met may be better (95 %)"
        rivals = f"{found.rivals:,}{' or more' if found.rivals == MOST_RIVALS else ''}"
        evaluations = f"{found.evaluations} more evaluation{'s' if found.evaluations > 1 else ''}"
        met = f"of the {found.met:,} other networks within that the climbs met"
        return f"at least {evaluations}: {met}, {rivals} may be better (95 %)"

    def fleet(self, answers: Sequence[Answer]) -> str:
        """Several targets: what each gets, what each winner takes elsewhere, and the best for all."""
        from riwoa.run.answer import best_for_all

        head = f"What each target gets, from {len(self._found):,} evaluated networks of {self._runs()}"
        names = ["table", "within", "winner", self._metric, "takes", "predicted", "to be sure"]
        cells = [self._fleet_row(a) for a in answers]
        below = "\n".join(f"{row[0]}\n{facts(zip(names[1:], row[1:], strict=True))}" for row in cells)
        blocks = [paragraph(head, "  ", ""), table(names, cells) or below]
        winners = list(dict.fromkeys(a.best for a in answers if a.best is not None))
        if winners:
            rows = [["milliseconds of", *map(self._place, winners)]]
            rows += [[a.target.name, *(_ms_cell(a, row) for row in winners)] for a in answers]
            blocks += ["", columns(rows), paragraph("* keeps the target", "  ", "")]
        row = best_for_all(self._found, answers)
        one = "none of the evaluated networks keeps every target"
        if row is not None:
            one = f"{self._place(row)}, {named_measure(self._metric, self._raw(row))}, keeps every target"
        return "\n".join([*blocks, paragraph(f"one for all: {one}", "  ", "")])

    def _fleet_row(self, answer: Answer) -> list[str]:
        cells = [answer.target.name, f"{number(answer.target.within_ms)} ms", "none", "", ""]
        if answer.best is not None:
            takes = f"{answer.latencies_ms[answer.best]:.3f} ms"
            cells[2:] = [self._place(answer.best), self._measured(answer.best), takes]
        expected = "" if answer.prediction is None else measured(self._metric, self._predicted(answer)[0])
        return [*cells, expected, _effort_cell(answer)]

    # -- numbers ---------------------------------------------------------------------------------------------------

    @property
    def _metric(self) -> str:
        return self._found.metric

    def _head(self) -> str:
        return "validation" if self._metric == "accuracy" else self._metric

    def _raw(self, row: int) -> float:
        return float(self._found.metrics[row][self._metric])

    def _measured(self, row: int) -> str:
        return measured(self._metric, self._raw(row))

    def _interval(self, row: int) -> tuple[float | None, float | None]:
        """At 95 %, of an accuracy as a draw of pictures; None where none were judged."""
        view, individual = self._individual(row)
        error = view.error(individual.record.metrics) if self._metric == "accuracy" else None
        if error is None:
            return None, None
        return max(0.0, self._raw(row) - _Z * error), min(1.0, self._raw(row) + _Z * error)

    def _predicted(self, answer: Answer) -> tuple[float, float, float]:
        """What is expected, and its interval, as the metric has it."""
        found = answer.prediction
        assert found is not None
        return (-found.mean, -found.high, -found.low) if self._found.lowered else (found.mean, found.low, found.high)

    # -- as JSON ---------------------------------------------------------------------------------------------------

    def to_json(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Everything."""
        from riwoa.run.answer import best_for_all

        row = best_for_all(self._found, answers)
        return {
            "run_id": self._found.run.run_id,
            "runs": list(self._found.run_ids),
            "evaluated": len(self._found),
            "metric": self._metric,
            "targets": [self._target_view(a) for a in answers],
            "for_all": None
            if row is None
            else {**self._evaluated_view(row), "latencies_ms": [float(a.latencies_ms[row]) for a in answers]},
        }

    def _target_view(self, answer: Answer) -> dict[str, Any]:
        latency, best, fastest_ms = answer.target.latency, answer.best, float(answer.latencies_ms.min())
        return {
            "table": answer.target.name,
            "table_sha256": latency.sha256,
            "measured_in": latency.measured_in,
            "latency_interval": latency.interval,
            "within_ms": answer.target.within_ms,
            "fastest_ms": fastest_ms if math.isfinite(fastest_ms) else None,
            "evaluated_within": int(answer.within.sum()),
            "best": None
            if best is None
            else self._evaluated_view(best) | {"latency_ms": float(answer.latencies_ms[best])},
            "predicted": self._predicted_view(answer),
            "to_be_sure": self._effort_view(answer),
        }

    def _evaluated_view(self, row: int) -> dict[str, Any]:
        view, individual = self._individual(row)
        record = individual.record
        low, high = self._interval(row)
        test = view.test(record.architecture_key)
        return {
            "run_id": individual.run_id,
            "generation": individual.generation,
            "slot": record.slot,
            "name": individual.name,
            "architecture_key": record.architecture_key,
            "value": self._raw(row),
            "low": low,
            "high": high,
            "test": None if test is None else {"accuracy": test.value, "accuracy_error": test.error},
            "architecture": dict(record.architecture),
        }

    def _predicted_view(self, answer: Answer) -> dict[str, Any] | None:
        if answer.prediction is None:
            return None
        mean, low, high = self._predicted(answer)
        return {
            "value": mean,
            "low": low,
            "high": high,
            "latency_ms": answer.predicted_ms,
            "evaluated_at": None if answer.predicted_row is None else self._place(answer.predicted_row),
            "unchecked": list(answer.unchecked),
            "architecture_key": self._found.space.key(answer.prediction.indices),
            "architecture": self._found.space.architecture(answer.prediction.indices),
        }

    def _effort_view(self, answer: Answer) -> dict[str, Any] | None:
        from riwoa.run.prediction import MOST_EVALUATIONS

        found = answer.prediction.effort if answer.prediction is not None else None
        if found is None:
            return None
        return {
            "evaluations": found.evaluations,
            "counted_to": MOST_EVALUATIONS,
            "rivals": found.rivals,
            "looked_at": found.met,
        }


def _between(metric: str, low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" (95 %: {measured(metric, low)} to {measured(metric, high)})"


def _latency_words(target: Target, ms: float) -> str:
    """Milliseconds with the table's interval, and whether that reaches beyond the target."""
    interval = target.latency.interval
    slowest_ms = ms * (1.0 + (interval or 0.0))
    beyond = f", so perhaps {slowest_ms:.3f} ms" if slowest_ms > target.within_ms else ""
    return f"{ms:.3f} ms{plus_minus(interval)}{beyond}"


def _effort_cell(answer: Answer) -> str:
    from riwoa.run.prediction import MOST_EVALUATIONS

    found = answer.prediction.effort if answer.prediction is not None else None
    if found is None:
        return ""
    return f"{MOST_EVALUATIONS}+" if found.evaluations == MOST_EVALUATIONS else f"{found.evaluations}"


def _ms_cell(answer: Answer, row: int) -> str:
    return f"{answer.latencies_ms[row]:.3f}{' *' if answer.within[row] else ''}"
