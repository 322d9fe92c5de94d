from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa_storage.errors import JournalCorruptError, JournalLockedError, JournalUnreadableError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, ReplyRecord
from riwoa_storage.replay import compare, verify
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import (
    CONFIG,
    PROVENANCE,
    adapter,
    alter,
    flip_byte,
    generation,
    individual,
    reseal,
    write_run,
    write_semantic_run,
)


async def test_an_intact_journal_verifies_to_the_digest_that_the_writer_returned(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = await write_run(path, 3)
    last = await write_run(path, 2, provenance={**PROVENANCE, "seed": 8})
    seen = verify(path)
    assert seen.ok
    assert seen.integrity == "ok"
    assert seen.final_digest == last
    assert [(r.status, r.generations, r.digest) for r in seen.runs] == [("abandoned", 3, first), ("running", 2, last)]


async def test_a_journal_without_a_run_verifies_to_no_digest(tmp_path: Path) -> None:
    await (await JournalWriter.open(tmp_path / "journal.db")).close()
    assert verify(tmp_path / "journal.db").final_digest is None


async def test_a_live_journal_verifies(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        digest = await writer.commit_generation(generation(run_id, 0))
        assert verify(path).final_digest == digest
        await writer.commit_generation(generation(run_id, 1))


TAMPERING = {
    "an individual's metric": (
        "UPDATE individuals SET metrics = replace(metrics, '0.5', '0.6') WHERE generation = 2 AND slot = 1",
        "generation 2",
    ),
    "an individual removed": ("DELETE FROM individuals WHERE generation = 3 AND slot = 0", "generation 3"),
    "a genotype": ("UPDATE individuals SET genotype = zeroblob(24) WHERE generation = 1 AND slot = 0", "generation 1"),
    "the state": ("UPDATE states SET state = zeroblob(8)", "generation 3"),
    "the state's place": ("UPDATE states SET generation = 2", "search state"),
    "the hash of a state": ("UPDATE generations SET state_sha256 = digest WHERE generation = 1", "generation 1"),
    "a generation removed from the middle": ("DELETE FROM generations WHERE generation = 1", "individuals"),
    "JSON that is none": ("UPDATE generations SET counters = '{' WHERE generation = 2", "generation 2"),
    "the run's head": ("UPDATE runs SET digest = replace(digest, substr(digest, 1, 1), 'x')", "generation 4"),
    "the provenance": ("UPDATE runs SET provenance = replace(provenance, '7', '9')", "generation 0"),
    "a provenance that is no JSON": ("UPDATE runs SET provenance = '{'", "run_id 1"),
    "an architecture": (
        "UPDATE architectures SET choices = replace(choices, '2', '3') WHERE architecture_key = 'k2-1'", "generation 2",
    ),
    "gene names": ("UPDATE texts SET text = replace(text, 'depth', 'width') WHERE text LIKE '%depth%'", "generation 0"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERING)
async def test_a_row_that_was_changed_on_purpose_checksum_and_all_is_located_by_the_chain(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    sql, place = TAMPERING[what]
    alter(path, sql)
    reseal(path)
    with pytest.raises(JournalCorruptError, match=place) as caught:
        verify(path)
    assert "\n" not in str(caught.value)


async def test_a_history_whose_last_generation_was_cut_off_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    alter(path, "DELETE FROM individuals WHERE generation = 3")
    alter(path, "DELETE FROM generations WHERE generation = 3")
    with pytest.raises(JournalCorruptError, match="run 1 breaks at generation 3"):
        verify(path)


@pytest.mark.parametrize("offset", [2, 7, 20])
async def test_one_flipped_bit_of_the_file_is_detected_and_located(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    flip_byte(path, individual(2, 1).genotype, offset)
    with pytest.raises(JournalCorruptError, match=r"run 1 breaks at generation 2 .* generations before 2 are intact"):
        verify(path)


async def test_a_flipped_bit_in_the_text_of_a_reply_is_detected_where_it_joined(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_semantic_run(path, "a text found once")
    flip_byte(path, b"a text found once")
    with pytest.raises(JournalCorruptError, match="breaks at generation 1"):
        verify(path)


async def test_a_byte_that_is_no_longer_utf8_is_detected_and_located(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    alter(path, "UPDATE individuals SET operator = CAST(x'ff' AS TEXT) WHERE generation = 2 AND slot = 0")
    with pytest.raises(JournalCorruptError, match="generation 2"):
        verify(path)


async def test_damaged_adapter_weights_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def with_adapter(writer: JournalWriter, run_id: int) -> None:
        await writer.put_adapter(adapter(run_id, 0, b"weights found once"))

    await write_run(path, 1, before=with_adapter)
    assert verify(path).ok
    flip_byte(path, b"weights found once", 4)
    with pytest.raises(JournalCorruptError, match="adapter 1"):
        verify(path)
    assert verify(path, adapters=False).ok  # a search can do without it


async def test_the_same_search_is_the_same_history_whatever_its_wall_times_and_run_number(tmp_path: Path) -> None:
    a, b = tmp_path / "a.db", tmp_path / "b.db"
    await write_run(b, 1)
    await write_run(a, 4)
    await write_run(b, 4, edit=lambda g: replace(g, duration_s=9.0, committed_unix_s=1.0))
    seen = compare(a, b)
    assert seen.same
    assert seen.generations == 4
    assert seen.digest_a == seen.digest_b
    assert "the same: 4 generations" in seen.message


def at(number: int, **changes: Any) -> Any:
    """Edits that generation."""
    return lambda g: replace(g, **changes) if g.generation == number else g


def at_slot(number: int, slot: int, **changes: Any) -> Any:
    def edit(g: GenerationRecord) -> GenerationRecord:
        if g.generation != number:
            return g
        return replace(g, individuals=tuple(replace(i, **changes) if i.slot == slot else i for i in g.individuals))

    return edit


PARTINGS = {
    "metric": (at_slot(2, 1, metrics={"accuracy": 0.9, "latency_ms": 11.0}), (2, 1, "metrics.accuracy")),
    "genotype": (at_slot(1, 2, genotype=bytes(24)), (1, 2, "genotype[0]")),
    "operator": (at_slot(3, 0, operator="search"), (3, 0, "operator")),
    "cause": (at(2, inputs={"deadline": True}, counters={}), (2, None, "inputs.deadline")),
    "counters": (at(1, counters={"evaluations": 6, "cache_hits": 1}), (1, None, "counters.cache_hits")),
    "state": (at(0, state=b"12345678"), (0, None, "state_sha256")),
    "leader": (at(0, leader=None), (0, None, "leader")),
    "slot": (at(3, individuals=(individual(3, 0),)), (3, 1, "individual")),
}


@pytest.mark.parametrize("what", PARTINGS)
async def test_the_first_place_where_two_histories_part_is_named(tmp_path: Path, what: str) -> None:
    edit, place = PARTINGS[what]
    await write_run(tmp_path / "a.db", 4)
    await write_run(tmp_path / "b.db", 4, edit=edit)
    seen = compare(tmp_path / "a.db", tmp_path / "b.db")
    assert not seen.same
    assert (seen.generation, seen.slot, seen.field) == place
    assert seen.generations == place[0]
    assert seen.value_a != seen.value_b


async def test_histories_of_different_provenance_part_before_the_first_generation(tmp_path: Path) -> None:
    await write_run(tmp_path / "a.db", 2)
    await write_run(tmp_path / "b.db", 2, provenance={**PROVENANCE, "space": {"name": "tiny", "genes": 4}})
    seen = compare(tmp_path / "a.db", tmp_path / "b.db")
    assert (seen.generation, seen.field, seen.value_a, seen.value_b) == (None, "provenance.space.genes", "3", "4")
    assert seen.message == "they part at field provenance.space.genes: 3 against 4"


async def test_a_history_that_goes_on_longer_is_not_the_same(tmp_path: Path) -> None:
    await write_run(tmp_path / "a.db", 2)
    await write_run(tmp_path / "b.db", 3)
    seen = compare(tmp_path / "a.db", tmp_path / "b.db")
    assert (seen.same, seen.generation, seen.value_a, seen.value_b) == (False, 2, "2 generations", "3 generations")


async def test_histories_that_part_in_a_reply_say_so(tmp_path: Path) -> None:
    await write_semantic_run(tmp_path / "a.db", "one")
    await write_semantic_run(tmp_path / "b.db", "two")
    seen = compare(tmp_path / "a.db", tmp_path / "b.db")
    assert (seen.generation, seen.field, seen.value_a, seen.value_b) == (1, "reply.0/2.text", '"one"', '"two"')


async def test_what_the_clock_decided_about_replies_is_read_back_whole(tmp_path: Path) -> None:
    await write_semantic_run(tmp_path / "a.db", "nul \0 and größer")
    with JournalReader(tmp_path / "a.db") as reader:
        stored: ReplyRecord | None = reader.reply("1/0/2")
    assert stored is not None
    assert stored.text == "nul \0 and größer"


async def extend(path: Path, first: int, count: int) -> None:
    async with await JournalWriter.open(path) as writer:
        for number in range(first, first + count):
            await writer.commit_generation(generation(1, number))


async def mark(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        await writer.mark_verified(verify(path, since_last=True).runs)


async def test_a_start_verifies_only_what_was_not_verified_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    await mark(path)
    alter(path, "UPDATE individuals SET fitness = 0.9 WHERE generation = 2 AND slot = 0")
    await extend(path, 4, 2)
    assert verify(path, since_last=True).runs[0].generations == 6
    with pytest.raises(JournalCorruptError, match="generation 2"):
        verify(path)  # in full
    await mark(path)
    alter(path, "UPDATE individuals SET fitness = 0.9 WHERE generation = 5 AND slot = 0")
    assert verify(path, since_last=True).ok
    await extend(path, 6, 1)
    alter(path, "UPDATE individuals SET fitness = 0.9 WHERE generation = 6 AND slot = 0")
    with pytest.raises(JournalCorruptError, match="breaks at generation 6"):
        verify(path, since_last=True)


SPOILED_MARKS = {
    "damaged": "UPDATE verified SET generations = 3",
    "of another chain": "UPDATE verified SET digest = replace(digest, substr(digest, 1, 1), 'x')",
    "beyond the run": "UPDATE verified SET generations = 9",
    "gone": "DELETE FROM verified",
}


@pytest.mark.parametrize("what", SPOILED_MARKS)
async def test_without_a_mark_to_build_on_a_start_verifies_from_the_beginning(tmp_path: Path, what: str) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    await mark(path)
    alter(path, SPOILED_MARKS[what])
    if what != "damaged":
        reseal(path)
    assert verify(path, since_last=True).ok
    alter(path, "UPDATE individuals SET fitness = 0.9 WHERE generation = 1 AND slot = 0")
    with pytest.raises(JournalCorruptError, match="breaks at generation 1"):
        verify(path, since_last=True)


async def test_a_cut_or_lengthened_history_is_noticed_by_a_start_whatever_was_verified(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    await mark(path)
    alter(path, "DELETE FROM individuals WHERE generation = 3")
    alter(path, "DELETE FROM generations WHERE generation = 3")
    with pytest.raises(JournalCorruptError, match="run 1 breaks"):
        verify(path, since_last=True)


async def test_a_start_walks_the_structure_and_a_proof_in_between_does_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    await mark(path)
    assert verify(path, since_last=True).integrity == "ok"
    assert verify(path, since_last=True, structure=False).integrity == "not asked"


@pytest.mark.parametrize("most", [1, 3, 7, 100])
async def test_a_history_is_proved_in_parts_as_it_is_at_once(tmp_path: Path, most: int) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 5)
    digest = await write_run(path, 4)
    told: list[tuple[int, int]] = []
    parts, complete = 0, False
    async with await JournalWriter.open(path) as writer:
        while not complete:
            found = verify(path, since_last=True, most=most, progress=lambda *at: told.append(at))
            await writer.mark_verified(found.runs)
            parts, complete = parts + 1, found.complete
    assert told == [(done, 9) for done in range(1, 10)]
    assert (parts, found.final_digest) == (-(-9 // most), digest)
    assert found.runs == verify(path).runs


async def test_damage_in_a_later_part_is_found_by_that_part(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 6)
    alter(path, "UPDATE individuals SET fitness = 0.9 WHERE generation = 4 AND slot = 0")
    async with await JournalWriter.open(path) as writer:
        await writer.mark_verified(verify(path, since_last=True, most=3).runs)
    with pytest.raises(JournalCorruptError, match="breaks at generation 4"):
        verify(path, since_last=True, most=3)


@pytest.mark.parametrize(
    "error", [JournalLockedError("locked"), JournalUnreadableError("too many open files"), MemoryError()]
)
async def test_what_keeps_a_generation_from_being_read_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 2)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(JournalReader, "generation", fails)
    with pytest.raises(type(error)) as caught:
        verify(path)
    assert caught.value is error


async def test_the_time_of_a_proof_does_not_grow_with_what_was_verified(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 300)
    started_s = time.perf_counter()
    verify(path, since_last=True)
    all_s = time.perf_counter() - started_s
    await mark(path)
    started_s = time.perf_counter()
    verify(path, since_last=True, structure=False)
    assert time.perf_counter() - started_s < all_s / 5
