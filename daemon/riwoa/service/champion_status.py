"""What the status tells of the champion, read without its lock. ``riwoactl status`` imports this: nothing here is slow.

The record of ``champions`` and the last look of ``continuous`` are all it is told from.
"""

from __future__ import annotations

import os
import time

from riwoa.files.ownership import json_object
from riwoa.parsing import MOST_JSON_BYTES, parse_json_object, read_once
from riwoa.service.status_check import checked_champion
from riwoa.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from riwoa.paths import StatePaths
    from riwoa.service.status_object import ChampionStatus, LookStatus

    T = TypeVar("T")

FOLDER, RECORD = "champions", "record.jsonl"
LAST_LOOK = "watch.json"  # beside the record: what was seen of a champion last
PROMOTED, ROLLED_BACK = "promoted", "rolled back"


def reigns(decisions: Iterable[T], kind: Callable[[T], object]) -> list[T]:
    """The promotions in force, of decisions in their order: the last is the champion's."""
    found: list[T] = []
    for decision in decisions:
        if kind(decision) == PROMOTED:
            found.append(decision)
        elif kind(decision) == ROLLED_BACK and len(found) > 1:
            found.pop()
    return found


def last_look(folder: str | os.PathLike[str], champion: str) -> dict[str, Any] | None:
    """What ``riwoad --continuous`` saw last of that champion; None where it has seen none, or another."""
    look = json_object(os.path.join(folder, LAST_LOOK))
    return look if look.get("champion") == champion else None


def champion_status(paths: StatePaths) -> ChampionStatus | None:
    """The champion of a state directory; None where there is none, or none that this user may read of."""
    folder = paths.name(FOLDER)
    in_force = reigns(_rows(os.path.join(folder, RECORD)), lambda row: row.get("decision"))
    if not in_force:
        return None
    promoted = in_force[-1]
    name = promoted.get("champion")
    look = last_look(folder, name) if isinstance(name, str) else None
    told = None if look is None else {**look, **_renamed(look.get("now"))}
    keys = ("folder", "unix_s", "verdict", "accuracy", "accuracy_error", "pictures", "acts_below")
    return checked_champion(
        {
            "name": name,
            "since_unix_s": promoted.get("unix_s"),
            "why": promoted.get("why"),
            "watched": None if told is None else {key: told.get(key) for key in keys},
        }
    )


def _rows(record: str) -> list[dict[str, Any]]:
    """The lines of the record; one that a kill tore is passed over, as by who writes it."""
    try:
        content, _ = read_once(record, MOST_JSON_BYTES)
    except (OSError, ValueError):
        return []
    found = []
    for line in content.splitlines():
        try:
            found.append(parse_json_object(line))
        except ValueError:
            continue
    return found


def _renamed(now: Any) -> dict[str, Any]:
    """An accuracy as ``continuous`` writes it, by the names of the status object."""
    if not isinstance(now, dict):
        return {}
    return {"accuracy": now.get("value"), "accuracy_error": now.get("error"), "pictures": now.get("pictures")}


def champion_words(champion: ChampionStatus) -> str:
    """Which it is, since when, and why."""
    return f"{champion['name']}, since {day_words(champion['since_unix_s'])}: {champion.get('why') or 'why is unknown'}"


def look_words(look: LookStatus) -> str:
    """What ``riwoad --continuous`` saw last."""
    error = look.get("accuracy_error")
    words = f"{printable(look.get('folder'))}, at {day_words(look['unix_s'])}: {look['verdict']}, "
    words += f"{100 * look['accuracy']:.2f} %" + (f" ± {100 * error:.2f}" if error is not None else "")
    words += f" on {look['pictures']:,} pictures"
    below = look.get("acts_below")
    return words if below is None else f"{words}; it searches again below {100 * below:.2f} %"


def day_words(unix_s: float) -> str:
    """The local date and time of day."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_s))
    except (OverflowError, ValueError, OSError):  # a year that no calendar has
        return "an unknown time"
