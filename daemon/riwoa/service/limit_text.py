"""The limits of a network in the status object, and as lines. ``riwoactl status`` imports this: it is quick."""

from __future__ import annotations

from riwoa.text import measured, named_measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from riwoa.run.limits import LimitStanding
    from riwoa.service.status_object import LeaderStatus, LimitStatus, StatusObject

VERDICTS = {True: "met", False: "NOT met", None: "not known"}


def limits_view(rows: Sequence[LimitStanding]) -> list[LimitStatus]:
    """What a network makes of each limit."""
    worst = max((row for row in rows if row.met is False), key=lambda row: row.load, default=None)
    return [
        {
            "metric": row.limit.metric,
            "bound": row.limit.limit,
            "at_least": row.limit.at_least,
            "value": row.value,
            "met": row.met,
            "tightest": row is worst,
            "reached": row.reached,
        }
        for row in rows
    ]


def limit_words(row: LimitStatus) -> str:
    """The limit itself."""
    return f"{row['metric']} {'>=' if row.get('at_least') else '<='} {measured(row['metric'], row['bound'])}"


def limit_line(row: LimitStatus) -> str:
    """A limit, the network's value, whether it holds; of the tightest what the evaluated networks reach."""
    value, metric, reached = row.get("value"), row["metric"], row.get("reached")
    shown = "" if value is None else f"{measured(metric, value)}, "
    line = f"{limit_words(row)}: {shown}{VERDICTS[row.get('met')]}"
    if row.get("tightest") and reached:
        least, greatest = (measured(metric, end) for end in reached)
        line += f"; the tightest limit: the evaluated networks reach {least} to {greatest}"
    return line


def value_words(leader: LeaderStatus) -> str:
    """What is optimised, of the leader; empty where it is not known."""
    metric = leader.get("metric") or "accuracy"
    value = leader.get("value") if leader.get("value") is not None else leader.get("accuracy")
    return "" if value is None else named_measure(metric, value)


def hypervolume_words(status: StatusObject) -> str:
    """What a search for a front has come to, to follow the number of its networks; empty where none is looked for."""
    run, leader = status.get("run"), status.get("leader")
    found, target_ms = (run.get("hypervolume"), run.get("target_ms")) if run else (None, None)
    if found is None or target_ms is None:
        return ""
    metric = (leader.get("metric") if leader else None) or "accuracy"
    return f", {named_measure(metric, found)} on average within each latency up to {target_ms:.3f} ms"


def missed_words(rows: Sequence[LimitStatus]) -> str:
    """Which limits are not met, in a few words; empty where all are."""
    missed = [row for row in rows if row.get("met") is not True]
    if not missed:
        return ""
    worst = next((row for row in missed if row.get("tightest")), missed[0])
    if len(missed) == 1:
        return f"misses {limit_words(worst)}"
    return f"misses {len(missed)} of {len(rows)} limits, by most {limit_words(worst)}"


def further(rows: Sequence[LimitStatus]) -> list[LimitStatus]:
    """What is to be shown beside the latency and its target; nothing where there is no other limit."""
    if all(row["metric"] == "latency_ms" for row in rows):
        return []
    return [row for row in rows if row["metric"] != "latency_ms" or row.get("met") is not True]
