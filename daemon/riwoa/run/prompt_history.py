"""What a prompt is told of earlier patches: rebuilt from the journal at every start, the same as if never stopped."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from riwoa.cognition.parse import told
from riwoa.cognition.prompt import EarlierPatch
from riwoa_storage.reader import PAGE_ROWS, JournalReader
from riwoa_storage.records import BufferEntryRecord, IndividualRecord

BEST_SHOWN, BEST_AMONG = 3, 20  # successes in a prompt, and among how many of the last
REJECTED_KEPT = 8  # no template shows more


class PromptHistory:
    """The last successes and the last rejected patches of a run, by its committed generations."""

    def __init__(self) -> None:
        self._successes: deque[EarlierPatch] = deque(maxlen=BEST_AMONG)
        self._rejected: deque[EarlierPatch] = deque(maxlen=REJECTED_KEPT)

    @property
    def successes(self) -> list[EarlierPatch]:
        """The best of the last successes, newest last; among equal gains the newer."""
        by_gain = sorted(enumerate(self._successes), key=lambda pair: (pair[1].gain or 0.0, pair[0]))
        return [memory for _, memory in sorted(by_gain[-BEST_SHOWN:], key=lambda pair: pair[0])]

    @property
    def rejected(self) -> list[EarlierPatch]:
        """The last rejected patches, newest last; a reply without a patch has an empty one."""
        return list(self._rejected)

    def succeeded(self, entries: Iterable[BufferEntryRecord]) -> None:
        """Remember the successes of a committed generation."""
        for entry in entries:
            patch, parent = entry.trace["patch"], entry.trace["parent_architecture"]
            gain = entry.child_fitness - entry.parent_fitness
            by_name = {gene: patch[gene] for gene in sorted(patch)}  # as the journal gives it back
            self._successes.append(EarlierPatch(by_name, {gene: parent[gene] for gene in by_name}, gain=gain))

    def failed(
        self,
        rejected: Iterable[tuple[str, str]],
        individuals: Mapping[str, IndividualRecord],
        parents: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Remember the rejected patches of a committed generation, and of their reasons what a prompt may say.

        Args:
            rejected: ("generation/slot" of the request, reason), in order.
            individuals: what came of these requests; a geometric move, or nothing, where the reply held no patch.
            parents: the architectures that they showed; none where no reply was written, of which there is nothing to
                remember.
        """
        for name, reason in rejected:
            if name not in parents:
                continue
            patch, parent = {}, parents[name]
            if name in individuals and individuals[name].operator == "semantic":
                patch = changed(parent, individuals[name].architecture)
            self._rejected.append(EarlierPatch(patch, {gene: parent[gene] for gene in patch}, reason=told(reason)))

    def restore(self, reader: JournalReader, run_id: int) -> None:
        """Remember what the journal holds."""
        self.succeeded(reader.buffer(run_id)[-BEST_AMONG:])
        last: deque[tuple[str, str]] = deque()
        individuals, parents = {}, {}
        for name, reason in _newest_rejected(reader, run_id):
            reply, request = reader.reply(f"{run_id}/{name}"), reader.request(f"{run_id}/{name}")
            if reply is None or reply.status != "ok" or request is None:
                continue
            last.appendleft((name, reason))
            parents[name] = request.parameters["parent"]
            if (individual := reader.individual_of(f"{run_id}/{name}")) is not None:
                individuals[name] = individual
            if len(last) == REJECTED_KEPT:
                break
        self.failed(last, individuals, parents)


def _newest_rejected(reader: JournalReader, run_id: int) -> Iterator[tuple[str, str]]:
    """(name, reason) of rejected replies, newest first; reads no further back than it is asked."""
    end = reader.generation_count(run_id)
    while end > 0:
        start = max(0, end - PAGE_ROWS)
        page = list(itertools.islice(reader.generation_summaries(run_id, start), end - start))
        for summary in reversed(page):
            yield from reversed(in_order(summary.inputs.get("rejected", {})))
        end = start


def in_order(rejected: Mapping[str, str]) -> list[tuple[str, str]]:
    """(name, reason) by generation and slot of the requests: JSON objects come back sorted as text."""
    return sorted(rejected.items(), key=lambda row: [int(part) for part in row[0].split("/")])


def changed(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of the child that differ, of genes that are active in both; by name, as journaled."""
    return {gene: child[gene] for gene in sorted(parent) if gene in child and child[gene] != parent[gene]}
