"""The network of a run that is wanted in the winner's place (``--within``, ``--prefer``): options and words."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from riwoa.ctl.command import Parser, columns, milliseconds
from riwoa.hardware.interval import plus_minus
from riwoa.run.front import Front, FrontNetwork
from riwoa.run.preference import Preference, latency_ms, weights
from riwoa.service.front_view import LEGEND, against_cell, measured_cell, test_cell, value_cell, value_head
from riwoa.text import number, printable

WEIGHTS = "accuracy=X,latency=Y"
PREFER_HELP = (
    "the network nearest to the best accuracy and the least latency of the front, weighed so (0.7 and 0.3, say)"
)


def add_within(parser: Parser) -> None:
    """Add the option that names another latency than the run's target."""
    what = "the best evaluated network that takes no longer: 12ms, 0.5ms"
    parser.add_argument("--within", type=milliseconds, metavar="TIME", help=what)


def weighed(text: str) -> dict[str, float]:
    """The weights of a text: an argument's type.

    Raises:
        ArgumentTypeError: it names none.
    """
    try:
        return weights(text)
    except ValueError as error:
        raise ArgumentTypeError(f"needs {error}, not {printable(text, 80)!r}") from None


def wanted_view(front: Front, wish: Preference) -> dict[str, Any]:
    """What was wanted of which run, and what it has to offer, as a JSON object."""
    return {
        "run_id": front.run.run_id,
        "within_ms": wish.within_ms,
        "weights": dict(wish.weights),
        "metric": front.objective.raised,
        "tries": front.tries,
        "attainable_ms": [latency_ms(front.able[0]), latency_ms(front.able[-1])],
    }


def wanted_words(
    front: Front, wish: Preference, network: FrontNetwork, latency_interval: float | None, run_id: int | None = None
) -> str:
    """What is known of the network: on pictures that chose nothing first, and plainly where none were asked.

    ``run_id``: as it was named; None for the latest.
    """
    so_far = ", which has not ended" if front.run.status != "finished" else ""
    what = "best" if not wish.weights else "nearest to the best accuracy and the least latency"
    rows = [("test", _test_words(front, network))]
    if against := against_cell(network):
        rows.append(("", f"less the run's winner: {against}"))
    rows += [
        (value_head(front), f"{value_cell(front, network)}, the best of at most {front.tries:,} tries"),
        ("latency", f"{latency_ms(network):.3f} ms{plus_minus(latency_interval)}"),
        ("measured", _measured_words(network, wish)),
        ("found by", "{}, generation {}, slot {}".format(network.individual.operator, *network.point.origin)),
    ]
    notes = []
    if network.is_winner:
        notes.append("It leads the run so far." if so_far else "It is the run's winner.")
    if wish.within_ms is not None and network.point.accuracy >= front.able[-1].point.accuracy:
        notes.append("No slower network of the run is better.")
    searched_ms = front.objective.latency_target_ms
    if wish.within_ms is not None and searched_ms is not None and wish.within_ms > searched_ms:
        notes.append(f"The run searched within {searched_ms:g} ms: beyond that a better one may well exist.")
    lines = [
        f"The {what} {wish}, of run {front.run.run_id}{so_far}",
        columns([[f"  {name}", words] for name, words in rows if words]),
        *([LEGEND] if against else []),
        *notes,
        f"`riwoactl export{_options(wish, run_id)}` writes it.",
    ]
    return "\n".join(lines)


def _test_words(front: Front, network: FrontNetwork) -> str:
    """Its accuracy on the test pictures, or why nobody knows it."""
    if found := test_cell(network):
        if network.test is None:
            return f"{found}, which no search looked at, by the table"
        return f"{found} ± {100 * network.test.error:.2f} on {network.test.pictures} pictures that chose nothing"
    if front.untested is not None:
        return f"none: {front.untested}"
    if front.test is None:
        return "not known: a run judges its front on test pictures when it ends"
    return "not known: it was not judged with the front; its export is, and tells"


def _measured_words(network: FrontNetwork, wish: Preference) -> str:
    """Its latency by the clock, and whether that is beyond what was asked."""
    timed = network.timed
    if timed is None or not timed.is_clear:
        return ""
    beyond = wish.within_ms is not None and timed.ms > wish.within_ms
    return measured_cell(network) + (f", beyond {number(wish.within_ms or 0.0)} ms" if beyond else "")


def _options(wish: Preference, run_id: int | None) -> str:
    within = "" if wish.within_ms is None else f" --within {wish.within_ms:g}ms"
    weighed_so = ",".join(f"{name}={weight:g}" for name, weight in wish.weights.items())
    named = "" if run_id is None else f" --run {run_id}"
    return within + (f" --prefer {weighed_so}" if weighed_so else "") + named
