"""How many wall seconds of a run went into what, added up by SQLite without reading the rows."""

from __future__ import annotations

from riwoa_storage.checked import CheckedTables

_LAST = 99


class SpentSeconds:
    """Wall seconds of a run's generations ``start`` to ``end`` (excluded); for reports, so no checksum is looked at.

    And what one evaluation or reply takes, of whatever run.
    """

    def __init__(self, tables: CheckedTables) -> None:
        self._tables = tables

    def of_an_evaluation(self) -> float | None:
        """Median wall seconds of the last evaluations; None where there are none."""
        return self._median("SELECT duration_s FROM evaluations ORDER BY created_unix_s DESC LIMIT ?")

    def of_a_reply(self, model: str) -> float | None:
        """Median wall seconds of a model's last replies; None where there are none."""
        sql = (
            "SELECT p.duration_s FROM replies AS p JOIN requests AS q USING (request_id) WHERE p.status = 'ok' "
            "AND q.model = ?2 ORDER BY p.created_unix_s DESC LIMIT ?1"
        )
        return self._median(sql, model)

    def _median(self, sql: str, *given: str) -> float | None:
        found = sorted(float(row[0]) for row in self._tables.rows(sql, _LAST, *given))
        return found[len(found) // 2] if found else None

    def evaluating(self, run_id: int, oracle_version: str, start: int, end: int) -> dict[str, float]:
        """Wall seconds of evaluation by operator, in generations ``start`` to ``end`` (excluded)."""
        sql = (
            "SELECT operator, sum(duration_s) FROM individuals JOIN evaluations USING (architecture_id) "
            "WHERE oracle_id = (SELECT text_id FROM texts WHERE text = ?) "
            "AND run_id = ? AND generation >= ? AND generation < ? AND cache_hit = 0 GROUP BY operator"
        )
        return {name: float(spent_s) for name, spent_s in self._tables.rows(sql, oracle_version, run_id, start, end)}

    def choosing(self, run_id: int, start: int, end: int) -> dict[str, float]:
        """Wall seconds of choosing by operator, journaled with generations ``start`` to ``end`` (excluded)."""
        sql = (
            "SELECT s.key, total(s.value) FROM events, json_each(payload, '$.seconds') AS s "
            "WHERE run_id = ? AND generation >= ? AND generation < ? AND kind = 'choice_timed' GROUP BY s.key"
        )
        return {name: float(spent_s) for name, spent_s in self._tables.rows(sql, run_id, start, end)}

    def writing(self, run_id: int, start: int, end: int) -> float:
        """Wall seconds that batches of requests took which joined generations ``start`` to ``end`` (excluded).

        The requests of a generation are one batch, and each of its replies carries the time of the whole.
        """
        sql = (
            "SELECT max(duration_s) FROM replies JOIN requests USING (request_id) "
            "WHERE run_id = ? AND join_generation >= ? AND join_generation < ? GROUP BY generation"
        )
        return sum(float(row[0]) for row in self._tables.rows(sql, run_id, start, end))

    def training(self, run_id: int, start: int, end: int) -> float:
        """Wall seconds of trainings, failed ones too, that were due in generations ``start`` to ``end`` (excluded)."""
        sql = (
            "SELECT total(json_extract(training, '$.duration_s')) FROM adapters "
            "WHERE run_id = ?1 AND generation >= ?2 AND generation < ?3 UNION ALL "
            "SELECT total(json_extract(payload, '$.duration_s')) FROM events "
            "WHERE run_id = ?1 AND generation >= ?2 AND generation < ?3 AND kind = 'training_failed'"
        )
        return sum(float(row[0]) for row in self._tables.rows(sql, run_id, start, end))
