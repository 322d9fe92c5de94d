"""``riwoactl champion``, ``promote`` and ``rollback``: which export is deployed, and what may take its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit, milliseconds
from riwoa.errors import InputError
from riwoa.paths import client_state
from riwoa.search.paired import Accuracy
from riwoa.service.champion_status import PROMOTED, champion_status, day_words, last_look, look_words
from riwoa.service.champions import Champions, Decision, export_name
from riwoa.service.promotion import FALLEN, LEAST_PICTURES, TOO_FEW, Gate, Watch, judge, watch
from riwoa.service.status_object import ChampionStatus
from riwoa.text import printable

_REFUSED = _FALLEN = 1
_MOST_CHARACTERS = 500
_SHOWN = 5  # decisions
_CHAMPION = """Says which export is the champion, since when and why, and what was decided before. With --fresh it shows
the champion labelled pictures of today (FOLDER/CLASS/*) and says whether it still reads them as it did when it was
promoted, and below which accuracy it would be time to search again. Exits 1 where it has fallen, else 0, also where
there are too few pictures to tell."""
_PROMOTE = """Has an export take the champion's place: the link `champion` in the state directory then leads to a copy
of its files. It must read labelled pictures that trained neither (FOLDER/CLASS/*) clearly better than the champion, and
take no longer, or no longer than --within; both are timed in turns. Where the champion misses --within, it must not be
clearly worse. The first champion needs no pictures, but with them it is known later whether it has fallen. Exits 0
where it was promoted, 1 where it was refused; why is written down."""
_ROLLBACK = """Returns to the champion before; asked again, to the one before that. The files of all are kept."""
_FRESH = "labelled pictures that trained no network: a folder a class"


def run(verb: str, arguments: list[str], options: Options) -> int:
    """One of the three verbs.

    Raises:
        InputError: no champion, no export, or no pictures where they are needed.
        StateLockedError: another of these verbs is at work.
    """
    return {"champion": _champion, "promote": _promote, "rollback": _roll_back}[verb](verb, arguments, options)


def _promote(verb: str, arguments: list[str], options: Options) -> int:
    parser = Parser(verb, description=_PROMOTE)
    parser.add_argument("--export", type=Path, metavar="DIR", help="default: export/ in the state directory")
    parser.add_argument("--fresh", type=Path, metavar="FOLDER", help=_FRESH)
    parser.add_argument("--within", type=milliseconds, metavar="TIME", help="an image may take so long, such as 12ms")
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    export = given.export or paths.export
    name = export_name(export)  # before a store is made for something that is none
    with Champions(paths) as champions:
        before = champions.champion
        old = None if before is None else champions.files(before.champion)
        with bar("judging", "round") as advance:
            gate = judge(export, old, given.fresh, given.within, lambda p: advance(p.done, p.total, ""))
        if export_name(export) != name:
            raise InputError(f"{export} was exported anew while it was judged; run this again")
        decide = champions.promote if gate.is_open else champions.refuse
        decision = decide(export, gate.why, gate.to_json())
        place = str(champions.link)
    emit(options, {**decision.to_json(), "link": place}, _promotion_words(decision, gate, place))
    return 0 if gate.is_open else _REFUSED


def _promotion_words(decision: Decision, gate: Gate, place: str) -> str:
    rows = [[decision.decision, f"{decision.champion}: {gate.why}"]]
    if gate.challenger is not None:
        rows.append(["accuracy", _accuracy_words(gate.challenger)])
    if gate.champion is not None:
        rows.append(["champion", _accuracy_words(gate.champion)])
    if gate.latency is not None:
        low_ms, high_ms = gate.latency.low_ms, gate.latency.high_ms
        rows.append(
            ["latency", f"{gate.latency.ms:.3f} ms ({low_ms:.3f} to {high_ms:.3f}), at most {gate.limit_ms:.3f}"]
        )
    rows += [["pictures", printable(remark, _MOST_CHARACTERS)] for remark in gate.remarks]
    if decision.decision == PROMOTED:
        rows.append(["deployed", f"{place} leads to it; riwoactl rollback returns to the one before"])
    return columns(rows)


def _roll_back(verb: str, arguments: list[str], options: Options) -> int:
    parser = Parser(verb, description=_ROLLBACK)
    parser.add_argument("--why", default="asked for", metavar="TEXT", help="written down with it")
    given = parser.parse_args(arguments)
    with Champions(client_state(options.state)) as champions:
        decision = champions.roll_back(printable(given.why, _MOST_CHARACTERS))
        place = str(champions.link)
    emit(options, {**decision.to_json(), "link": place}, f"{place} leads to {decision.champion} again")
    return 0


def _champion(verb: str, arguments: list[str], options: Options) -> int:
    parser = Parser(verb, description=_CHAMPION)
    parser.add_argument("--fresh", type=Path, metavar="FOLDER", help=_FRESH)
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    if not (paths.state / "champions").is_dir():
        raise InputError(f"there is no champion in {paths.state} yet; riwoactl promote makes the export one")
    with Champions(paths) as champions:
        champion, decisions = champions.champion, champions.decisions
        if champion is None:
            raise InputError(f"there is no champion in {paths.state} yet; riwoactl promote makes the export one")
        seen = None
        if given.fresh is not None:
            seen = watch(champions.files(champion.champion), champion.gate, given.fresh)
        look, now = last_look(champions.folder, champion.champion), champion_status(paths)
    data: dict[str, Any] = {
        **champion.to_json(),
        "last_look": look,
        "watch": None if seen is None else seen.to_json(),
        "decisions": [decision.to_json() for decision in decisions],
    }
    emit(options, data, _champion_words(champion, decisions, seen, now))
    return _FALLEN if seen is not None and seen.verdict == FALLEN else 0


def _champion_words(
    champion: Decision, decisions: tuple[Decision, ...], seen: Watch | None, status: ChampionStatus | None
) -> str:
    rows = [["champion", f"{champion.champion}, since {day_words(champion.unix_s)}: {champion.why}"]]
    if status is not None and (look := status.get("watched")):
        rows.append(["watched", look_words(look)])
    if seen is not None:
        rows.append(["now", f"{_accuracy_words(seen.now)}: {_verdict_words(seen)}"])
        if seen.then is not None and seen.acts_below is not None:
            rows.append(["then", f"{_accuracy_words(seen.then)}; fallen is below {100 * seen.acts_below:.2f} % now"])
        for name, count in seen.new_classes.items():
            said = f"{printable(name)}, {count:,} pictures: it cannot know them; riwoactl train on them"
            rows.append(["new class", said])
        rows += [["pictures", printable(remark, _MOST_CHARACTERS)] for remark in seen.remarks]
    for decision in reversed(decisions[-_SHOWN:]):
        said = f"{day_words(decision.unix_s)}  {decision.champion}: {printable(decision.why, _MOST_CHARACTERS)}"
        rows.append([decision.decision, said])
    return columns(rows)


def _verdict_words(seen: Watch) -> str:
    if seen.verdict == TOO_FEW:
        return f"too few to tell, {LEAST_PICTURES} are the least, now and when it was promoted"
    if seen.then is None:
        return "it was promoted without pictures, so nothing to compare with"
    if seen.verdict == FALLEN:
        return "fallen; search again with these pictures among the data, then riwoactl promote"
    return "as when it was promoted"


def _accuracy_words(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.value:.2f} % ± {100 * accuracy.error:.2f} on {accuracy.pictures:,} pictures"
