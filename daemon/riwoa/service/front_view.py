"""What is shown of a run's winner and front: on the test pictures first, and what chose them named as what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from riwoa.oracle.protocol import accuracy_error
from riwoa.run.front import Front, FrontNetwork, read_front
from riwoa.service.limit_text import further, limit_line, limits_view
from riwoa.service.status_object import EqualStatus, JudgementStatus, TimedStatus
from riwoa.service.timed_status import timed_status
from riwoa.text import measured, named_measure, number, points
from riwoa_storage.reader import JournalReader

LEGEND = "± standard error, paired by picture; = cannot be told from the winner"


def journaled_front(journal: Path, run_id: int) -> Front:
    """A run's front and winner, from its journal."""
    with JournalReader(journal) as reader:
        return read_front(reader, reader.run(run_id))


def test_view(front: Front) -> JudgementStatus | None:
    """What the test pictures said; None where nobody asked them."""
    if front.test is None:
        return None if front.untested is None else {"reason": front.untested}
    fastest = front.fastest_equal
    return {
        "accuracy": front.test.value,
        "accuracy_error": front.test.error,
        "pictures": front.test.pictures,
        "views": front.test.views,
        "judged": sum(network.test is not None for network in front.networks),
        "equal": sum(network.is_equal for network in front.networks),
        "fastest_equal": None if fastest is None else _equal(fastest),
    }


def _equal(network: FrontNetwork) -> EqualStatus:
    assert network.test is not None
    assert network.difference is not None
    return {
        "architecture_key": network.point.key,
        "latency_ms": network.point.latency_ms,
        "accuracy": network.test.value,
        "difference": network.difference.value,
        "difference_error": network.difference.error,
        "p": network.difference.p,
    }


def timed_view(front: Front) -> TimedStatus | None:
    """What the clock said of the winner; None where nobody asked it."""
    finalists = front.finalists
    if finalists is None:
        return None
    return timed_status(finalists.winner.to_json(), finalists.runtime, len(finalists.networks), finalists.note)


def measured_words(front: Front) -> str:
    """The winner's latency by the clock; "" where nobody asked it, or it was unsteady."""
    finalists = front.finalists
    if finalists is None or not finalists.winner.is_clear:
        return ""
    network = finalists.winner
    return f"{network.ms:.3f} ms ({network.low_ms:.3f} to {network.high_ms:.3f}) in {finalists.runtime}, as exported"


def measured_cell(network: FrontNetwork) -> str:
    """Its latency by the clock; empty where it was not timed."""
    return "" if network.timed is None else f"{network.timed.ms:.3f} ms"


def percent(share: float) -> str:
    """A share with two decimals."""
    return f"{100 * share:.2f} %"


def value_cell(front: Front, network: FrontNetwork) -> str:
    """What is optimised, of a network, as the search saw it."""
    metric = front.objective.raised
    return measured(metric, network.individual.metrics[metric])


def value_head(front: Front) -> str:
    """What stands above these cells."""
    metric = front.objective.raised
    return "validation" if metric == "accuracy" else metric


def limit_lines(front: Front) -> list[str]:
    """A line each limit beside the latency target, with the winner's value; none where there is no other."""
    return [limit_line(row) for row in further(limits_view(front.limits))]


def told_apart(front: Front) -> list[FrontNetwork]:
    """The networks of a front that are worth a row: each better than the one before by more than its error.

    Of those that cannot be told from the winner there are the winner and the fastest.
    """
    kept: list[FrontNetwork] = []
    fastest = front.fastest_equal
    for network in front.networks:
        if network.is_winner or network is fastest:
            kept.append(network)
        elif not network.is_equal and (not kept or _is_better(front, network, kept[-1])):
            kept.append(network)
    return kept


def _is_better(front: Front, network: FrontNetwork, than: FrontNetwork) -> bool:
    """Whether a network is more accurate than another by more than its standard error; by anything where none is known.

    On the test pictures where both were judged, else on those that chose.
    """
    if network.test is not None and than.test is not None:
        return network.test.value - than.test.value > network.test.error
    metric = front.objective.raised
    error = accuracy_error(network.individual.metrics, front.run.provenance.get("oracle", {}))
    if metric != "accuracy" or error is None:
        return True
    return float(network.individual.metrics[metric] - than.individual.metrics[metric]) > error


def left_out_line(front: Front, shown: Sequence[FrontNetwork]) -> str:
    """How many networks of the front are not shown, and why; empty where all are."""
    count = len(front.networks) - len(shown)
    if not count:
        return ""
    some = "One more network lies" if count == 1 else f"{count} more networks lie"
    return f"{some} closer than the errors can tell; `riwoactl pareto` lists all {len(front.networks)}."


def within_words(front: Front) -> str:
    """Whether the winner keeps the target, or where there are other limits all of them; empty where there is none."""
    assert front.leader is not None
    verb = "within" if front.leader["feasible"] else "NOT within"
    if limit_lines(front):
        return f"{verb} {'all ' if front.leader['feasible'] and len(front.limits) > 1 else ''}its limits"
    target_ms = front.leader["target_ms"]
    return "" if target_ms is None else f"{verb} the target of {target_ms:.3f} ms"


def test_words(front: Front) -> str:
    """The winner's accuracy on pictures that chose nothing, or why there is none."""
    reported = front.leader["metrics"].get("report") if front.leader is not None else None
    if reported is not None:
        return f"{percent(reported)}, which no search looked at, by the table"
    if front.test is None:
        return f"none: {front.untested or 'the run ended before it judged any network on test pictures'}"
    views = f", {front.test.views} views each," if front.test.views > 1 else ""
    error = 100 * front.test.error
    return f"{percent(front.test.value)} ± {error:.2f} on {front.test.pictures} pictures{views} that chose nothing"


def validation_words(front: Front, confirmed: Mapping[str, Any] | None = None) -> str:
    """The winner's accuracy on what chose it, named so; ``confirmed``: its metrics in float32, where that is else."""
    assert front.leader is not None
    metrics = front.leader["metrics"]
    images = f" on {metrics['images']:,} validation images" if "images" in metrics else ""
    metric = front.objective.raised
    exact = f" ({measured(metric, confirmed[metric])} in float32, as exported)" if confirmed is not None else ""
    return f"{named_measure(metric, metrics[metric])}{exact}, the best of {front.tries:,} tries{images}"


def test_cell(network: FrontNetwork) -> str:
    """Its accuracy on the test pictures; empty where it was not judged."""
    reported = network.individual.metrics.get("report")  # a table's own
    test = network.test.value if network.test is not None else reported
    return percent(test) if test is not None else ""


def against_cell(network: FrontNetwork) -> str:
    """How far that is from the winner's, and whether the two can be told apart; empty where it is not known."""
    found = network.difference
    if found is None:
        return ""
    return f"{points(found.value, found.error)}{'' if found.is_clear else '  ='}"


def int8_words(exported: Mapping[str, Any]) -> str:
    """The winner in 8 bits, by architecture.json: on the test pictures, or on validation where there are none."""
    split = "test" if "test" in exported else "validation"
    found = exported[split]
    less = found.get("against_float32")
    if less is None:  # exported by an older version
        return f"{percent(found['accuracy'])} on the {split} pictures"
    exact = found["accuracy"] - less["value"]
    return (
        f"{percent(found['accuracy'])} on the {split} pictures, {percent(exact)} in float32, "
        f"paired {points(less['value'], less['error'])}"
    )


def target_rows(front: Front) -> list[list[str]]:
    """A row each target of several devices, below a head: what is known of none has no column; empty without them."""
    if not front.targets:
        return []
    metric = front.objective.raised
    tested = any(target.test is not None for target in front.targets)
    rows = [["target", "within", *(["test"] if tested else []), value_head(front), "takes", "network"]]
    for target in front.targets:
        cells = [target.name, f"{number(target.within_ms)} ms"]
        if target.place is None or target.latency_ms is None:
            rows.append([*cells, *([""] if tested else []), "none found", "", ""])
            continue
        test = [] if not tested else ["" if target.test is None else percent(target.test.value)]
        value, place = measured(metric, target.metrics[metric]), "{}/{}".format(*target.place)
        rows.append([*cells, *test, value, f"{target.latency_ms:.3f} ms", place])
    return rows


def target_table(front: Front) -> str:
    """``target_rows`` in columns, and which command writes the files; "" where the run serves one device."""
    rows = target_rows(front)
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "`riwoactl export --target NAME` writes the files of one."])


def front_line(front: Front) -> str:
    """How another latency is answered, where a front was looked for."""
    if not front.objective.front:
        return ""
    return "Any latency has its network: `riwoactl export --within TIME` writes it."


def fastest_line(front: Front) -> str:
    """Which network gives the winner's accuracy for the least time; empty where nothing was judged."""
    if front.test is None:
        return ""
    found = front.fastest_equal
    if found is None or found.difference is None:
        return "No faster network of the front was found to be as good on the test pictures."
    return (
        f"The fastest that cannot be told from the winner takes {found.point.latency_ms:.3f} ms "
        f"({points(found.difference.value, found.difference.error)} points, p = {found.difference.p:.2g});\n"
        "`riwoactl export --prefer fastest-equal` writes it."
    )
