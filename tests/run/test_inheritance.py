"""The adapter of an earlier run: which is chosen, how it is judged, and that a resumed run has exactly that one."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.protocol import OnTrainingStep, Trained, TrainingJob
from riwoa.cognition.provider import ScriptedProvider
from riwoa.config.loading import load
from riwoa.config.schema import as_json
from riwoa.errors import AdapterError
from riwoa.run.inheritance import Heritage, Inherited, heritage_of
from riwoa_storage.backup import compact
from riwoa_storage.events import AdapterTried, AdapterUnusable, TrainingFailed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import AdapterRecord
from riwoa_storage.replay import compare, verify
from riwoa_storage.writer import JournalWriter
from tests.run import test_lora_schedule as in_slots
from tests.run.conduct import SMALL, SPACE, conduct
from tests.run.test_comparisons import SETTINGS
from tests.run.test_table_run import life, table, table_settings
from tests.service.test_service import ctl
from tests.service.test_service import run as daemon
from tests.storage.samples import alter

__all__ = ["table"]  # the fixture

TARGET_MS = 100.0
PROVENANCE: dict[str, Any] = {
    "seed": 0,
    "space": SPACE.to_json(),
    "oracle_version": "landscape-1",
    "latency_table_sha256": "phone",
    "target_ms": TARGET_MS,
    "model": "scripted:good",
    "model_spec": None,
}
LIVES = 60


pytestmark = pytest.mark.usefixtures("landscape_oracles")


class Pupil(ScriptedProvider):
    """Keeps the jobs that it is given, with the adapters that they are of; in a trial it may be worse with it."""

    def __init__(self, *, worse: bool = False, refuses: str | None = None) -> None:
        super().__init__("good")
        self.jobs: list[tuple[TrainingJob, str | None]] = []
        self._worse = worse
        self._refuses = refuses

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        if sha256 is not None and sha256 == self._refuses:
            raise AdapterError("its tensors do not fit this model")
        await super().use_adapter(sha256, path)

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        self.jobs.append((job, self._adapter))
        found = await super().train(job, on_progress)
        return replace(found, before=found.after, after=found.before) if job.trial and self._worse else found


def heritage(path: Path, *, role: str = "pool", **changes: Any) -> Heritage:
    with JournalReader(path) as reader:
        return heritage_of(reader, {**PROVENANCE, **changes}, role=role)


async def begin(path: Path, *, inherit: bool = True, role: str = "pool", **changes: Any) -> Inherited | None:
    """Begin a run as the daemon does."""
    async with await JournalWriter.open(path) as writer:
        found = heritage(path, role=role, **changes).adapter if inherit else None
        told = {"adapter": found.to_json()} if found is not None else {}
        settings = SETTINGS if role == "pool" else in_slots.LEARNING
        config = load(None, [*SMALL, *settings], {}).config
        await writer.begin_run({**PROVENANCE, **changes, **told}, as_json(config))
    return found


async def run(path: Path, provider: ScriptedProvider | None = None, **how: Any) -> str:
    """Go on with the run that was begun last."""
    return await conduct(path, *SETTINGS, provider=provider or Pupil(), target_ms=TARGET_MS, **how)


def rows(path: Path, run_id: int) -> list[AdapterRecord]:
    with JournalReader(path) as reader:
        return reader.adapters(run_id)


def told(path: Path, run_id: int) -> list[Any]:
    with JournalReader(path) as reader:
        trained = [(a.generation, a.parent_id, a.sha256, a.status) for a in reader.adapters(run_id)]
        return [trained, [(r.request_id, r.adapter_sha256, r.prompt) for r in reader.requests(run_id)]]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("once") / "whole.db"

    async def first() -> None:
        assert await begin(path) is None
        await run(path)

    asyncio.run(first())
    return path


@pytest.fixture
def path(once: Path, tmp_path: Path) -> Path:
    """A journal with one run that has learned."""
    return Path(shutil.copy(once, tmp_path / "journal.db"))


def newest(path: Path, run_id: int = 1) -> AdapterRecord:
    """The last adapter of a run in service."""
    return [row for row in rows(path, run_id) if row.status != "rejected"][-1]


# -- which -------------------------------------------------------------------------------------------------------------


def test_the_last_of_a_line_is_inherited_with_all_that_it_was_trained_from(path: Path) -> None:
    found = heritage(path).adapter
    assert found is not None
    line = [row for row in rows(path, 1) if row.status != "rejected"]
    assert len(line) >= 2
    assert (found.run, found.sha256, found.differs, found.anchor) == (1, line[-1].sha256, (), None)
    assert [a.sha256 for a in found.ancestry] == [row.sha256 for row in reversed(line[:-1])]
    assert Inherited.from_json(found.to_json()) == found
    assert (
        f"{line[-1].sha256[:12]} of run 1, the same task, trained from {line[-2].sha256[:12]} of run 1" in found.words
    )


def test_what_lies_between_the_tasks_is_named_and_makes_an_anchor(path: Path) -> None:
    found = heritage(path, target_ms=4.0, latency_table_sha256="another").adapter
    assert found is not None
    assert found.differs == ("device", "target")
    assert found.anchor == found.sha256
    assert "another device and target" in found.words


async def made(path: Path, number: int, gain: float, **changes: Any) -> str:
    """A run with one adapter that was measured to gain so much; returns its hash."""
    weights = f"weights {number}".encode()
    before = {"top_gains": [0.0, 0.0], "held_out_loss": None}
    training = {"model": "m@1", "trained": {"before": before, "after": {**before, "top_gains": [gain, gain]}}}
    provenance = {**PROVENANCE, "model": "m@1", **changes}
    async with await JournalWriter.open(path) as writer:
        row = AdapterRecord(
            adapter_id=0,
            run_id=await writer.begin_run(provenance, {}),
            generation=3,
            parent_id=None,
            sha256=hashlib.sha256(weights).hexdigest(),
            weights=weights,
            status="current",
            training={**training, "model": provenance["model"]},
        )
        await writer.put_adapter(row)
    return row.sha256


async def test_the_nearest_task_counts_first_then_the_gain_then_the_age(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    far = await made(path, 1, 0.9, target_ms=1.0, oracle_version="another")
    apart = await made(path, 2, 0.8, target_ms=1.0)
    better = await made(path, 3, 0.3)
    await made(path, 4, 0.2)
    later = await made(path, 5, 0.3)
    spec = {"model": "/moved/m@1"}
    for expected in (later, better, None, apart, far):
        found = heritage(path, **spec).adapter
        assert found is not None
        if expected is not None:
            assert found.sha256 == expected
        alter(path, f"UPDATE adapters SET weights = NULL WHERE adapter_id = {found.adapter_id}")
    nothing = heritage(path, **spec)
    assert nothing.adapter is None
    assert all("is no longer kept" in reason for reason in nothing.left_out)


async def test_what_does_not_fit_or_is_damaged_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    shape = {"lora_rank": 8, "lora_alpha": 16, "lora_modules": ["q_proj", "v_proj"]}
    damaged = await made(path, 1, 0.5, model_spec=shape)
    refused = await made(path, 2, 0.5, model_spec=shape)
    await made(path, 3, 0.5, model="n@2", model_spec=shape)
    await made(path, 4, 0.5, model_spec={**shape, "lora_rank": 16})
    await made(path, 5, 0.5, model_spec=shape, space={"name": "elsewhere"})
    alter(path, "UPDATE adapters SET weights = x'00' WHERE adapter_id = 1")
    async with await JournalWriter.open(path) as writer:
        await writer.put_event(AdapterUnusable(run_id=2, generation=3, sha256=refused, reason="no", refused=True))
    found = heritage(path, model="m@1", model_spec=shape)
    assert found.adapter is None
    assert list(found.left_out) == [
        f"adapter {damaged[:12]} of run 1 is damaged in the journal",
        "the adapters of run 3: another base model (n@2)",
        "the adapters of run 4: another shape (rank 16, 8 here)",
        "the adapters of run 5: another space",
    ]
    alter(path, "UPDATE adapters SET training = '{}' WHERE run_id = 4")
    (damaged_row,) = [
        r for r in heritage(path, model="m@1", model_spec=shape).left_out if r.startswith("the adapters of run 4")
    ]
    assert "the row of adapters" in damaged_row
    in_a_slot = heritage(path, role="slot", model="m@1", model_spec=shape)
    assert "the adapters of runs 1, 2: trained in another role (pool)" in in_a_slot.left_out


# -- how it is judged --------------------------------------------------------------------------------------------------


async def test_it_is_tried_on_the_first_lessons_and_in_force_once_they_let_it_through(path: Path) -> None:
    found = await begin(path)
    assert found is not None
    provider = Pupil()
    await run(path, provider)
    (trial, tried), (training, base) = provider.jobs[:2]
    assert (trial.trial, tried) == (True, found.sha256)
    assert not trial.comparisons
    assert len(trial.judging) > 0
    assert (training.trial, base, training.anchor_path) == (False, found.sha256, None)
    assert training.comparisons
    first, second = rows(path, 2)[:2]
    assert (first.sha256, first.parent_id, first.status) == (found.sha256, found.adapter_id, "superseded")
    assert first.weights == newest(path).weights
    assert second.parent_id == first.adapter_id
    with JournalReader(path) as reader:
        (event,) = reader.events(2, AdapterTried)
        requests = reader.requests(2)
    assert (event.accepted, event.from_run, event.sha256) == (True, 1, found.sha256)
    assert event.reasons
    assert {r.adapter_sha256 for r in requests if r.generation < first.generation} == {None}
    assert {r.adapter_sha256 for r in requests if first.generation <= r.generation < second.generation} == {
        found.sha256
    }
    assert verify(path).ok


async def test_in_a_slot_the_first_successes_judge_it(tmp_path: Path) -> None:
    path, provider = tmp_path / "journal.db", Pupil()
    for number in (1, 2):
        found = await begin(path, role="slot", target_ms=float(number))
        assert (found is None) == (number == 1)
        await conduct(path, *in_slots.LEARNING, provider=provider, target_ms=in_slots.EASY_MS)
    (trial, base) = next((job, base) for job, base in provider.jobs if job.trial)
    assert found is not None
    assert base == found.sha256
    assert trial.held_out
    assert not trial.examples
    first = rows(path, 2)[0]
    assert (first.sha256, first.status) == (found.sha256, "superseded")
    with JournalReader(path) as reader:
        (event,) = reader.events(2, AdapterTried)
        assert reader.buffer(2)[0].consumed_by == rows(path, 2)[1].adapter_id  # the trial took none
    assert event.accepted
    assert "held-out loss" in event.reasons[0]


async def test_one_that_the_first_lessons_reject_is_never_used(path: Path) -> None:
    found = await begin(path, target_ms=4.0)
    assert found is not None
    provider = Pupil(worse=True)
    await run(path, provider)
    (trial, _), *trainings = provider.jobs
    assert trial.trial
    assert trainings
    assert trainings[0][1] is None  # from the bare model
    assert all(job.anchor_path is None for job, _ in trainings)
    first, second = rows(path, 2)[:2]
    assert first.status == "rejected" != second.status
    with JournalReader(path) as reader:
        (event,) = reader.events(2, AdapterTried)
        used = {r.adapter_sha256 for r in reader.requests(2) if r.generation < second.generation}
    assert used == {None}
    assert not event.accepted
    assert "(rejected)" in " ".join(event.reasons)


async def test_trainings_of_another_task_are_held_to_it_also_in_a_third_run(path: Path) -> None:
    found = await begin(path, target_ms=4.0)
    assert found is not None
    provider = Pupil()
    await run(path, provider)
    anchors = [Path(job.anchor_path).stem if job.anchor_path else None for job, _ in provider.jobs]
    assert anchors == [None, *[found.sha256] * (len(anchors) - 1)]
    assert len(anchors) > 1
    assert [row.training.get("anchor_sha256") for row in rows(path, 2)] == anchors
    third = await begin(path, target_ms=4.0)
    assert third is not None
    assert (third.run, third.differs, third.anchor) == (2, (), found.sha256)  # the task goes on
    assert third.ancestry[-1].run == 1
    assert len({a.sha256 for a in third.ancestry}) == len(third.ancestry)


async def test_one_that_the_model_refuses_is_left_out_and_the_run_goes_on(path: Path) -> None:
    found = await begin(path)
    assert found is not None
    provider = Pupil(refuses=found.sha256)
    resumed: list[Any] = []
    await run(path, provider, at_commit=resumed.append)
    with JournalReader(path) as reader:
        (unusable,) = reader.events(2, AdapterUnusable)
        (failed,) = reader.events(2, TrainingFailed)
    assert (unusable.sha256, unusable.reason) == (found.sha256, "its tensors do not fit this model")
    assert "do not fit" in failed.reason
    learning = resumed[-1].learning
    assert (learning.trial, learning.failed, learning.unusable) == ("failed", 0, [found.sha256])
    assert rows(path, 2)
    assert not any(job.trial for job, _ in provider.jobs)
    unharmed = heritage(path).adapter
    assert unharmed is not None
    assert unharmed.sha256 != found.sha256


async def test_one_that_is_gone_when_it_is_to_be_tried_is_left_out(path: Path) -> None:
    found = await begin(path)
    assert found is not None
    alter(path, "UPDATE adapters SET weights = NULL")
    await run(path)
    with JournalReader(path) as reader:
        (unusable,) = reader.events(2, AdapterUnusable)
    assert "gone from the journal" in unusable.reason
    assert rows(path, 2)[0].training["parent_sha256"] is None


# -- that it stays -----------------------------------------------------------------------------------------------------


async def test_compacting_keeps_it_while_the_run_goes_on(path: Path) -> None:
    found = await begin(path, target_ms=4.0)
    assert found is not None
    compact(path, adapters=0)
    assert [row.sha256 for row in rows(path, 1) if row.weights is not None] == [found.sha256]
    alter(path, "UPDATE runs SET status = 'finished'")
    compact(path, adapters=0)
    assert all(row.weights is None for row in rows(path, 1))


@pytest.mark.parametrize("worse", [False, True], ids=["accepted", "rejected"])
async def test_stopped_after_every_commit_a_run_that_inherited_ends_in_the_same_digest(
    path: Path, tmp_path: Path, *, worse: bool
) -> None:
    await begin(path, target_ms=4.0)
    parts = Path(shutil.copy(path, tmp_path / "parts.db"))
    digest = await run(path, Pupil(worse=worse))
    for _ in range(LIVES):
        if await run(parts, Pupil(worse=worse), stop_after=1) == digest:
            break
    found = compare(path, parts)
    assert found.same, found.message
    assert told(parts, 2) == told(path, 2)


async def test_a_run_that_inherits_nothing_is_the_search_that_it_was(path: Path, tmp_path: Path) -> None:
    """The journal's other runs do not show in a run without their adapters."""
    alone = Path(shutil.copy(path, tmp_path / "alone.db"))
    alter(alone, "DELETE FROM adapters")
    for journal in (path, alone):
        assert await begin(journal, inherit=False) is None
        await run(journal)
    assert not any("inherited" in row.training for row in rows(path, 2))
    found = compare(path, alone)
    assert found.same, found.message


# -- in the daemon -----------------------------------------------------------------------------------------------------

LEARNING = (
    "cognition.provider=scripted",
    "cognition.role=pool",
    "cognition.train_after=8",
    "cognition.train_lag=2",
    "cognition.held_out_share=0.5",
    "run.generations=12",
    "run.polish_evaluations=0",
    "search.riwoa.first=12",
    "search.memory=false",
)


def test_a_daemon_s_second_run_inherits_shows_it_and_ends_in_the_same_digest_after_kills(
    table: Path, tmp_path: Path
) -> None:
    settings = table_settings(table, "oracle.table.latency=latency.npz:phone_ms", *LEARNING)
    whole, state = tmp_path / "whole", tmp_path / "state"
    done = daemon(whole, settings=[*settings, "objective.latency_ms=9.0"])
    assert done.returncode == 0, done.stderr
    assert "adapter_inherited" not in done.stderr
    shutil.copytree(whole, state)
    second = [*settings, "objective.latency_ms=8.0"]
    done = daemon(whole, "--new-run", settings=second)
    assert done.returncode == 0, done.stderr
    sha256 = newest(whole / "journal.db").sha256
    assert "adapter_inherited" in done.stderr
    shown = ctl(whole, "status", "--verbose").stdout
    assert f"inherited    {sha256[:12]} of run 1, another target" in shown
    assert "first lessons" in shown
    # Killed when the run is begun and nothing else is written, while it learns, and after its trial.
    assert life(state, second, "journal.after_commit:2", "--new-run") == -signal.SIGKILL
    for failpoint in ("conductor.evaluated:3", "proposals.adapter_in_use:2"):
        assert life(state, second, failpoint) == -signal.SIGKILL
    assert life(state, second, "") == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message
    assert told(whole / "journal.db", 2) == told(state / "journal.db", 2)
    with JournalReader(whole / "journal.db") as reader:
        assert reader.run(2).provenance["adapter"]["sha256"] == sha256
        assert reader.events(2, AdapterTried)
    unknowing = daemon(state, "--new-run", settings=[*second, "cognition.inherit=false"])
    assert unknowing.returncode == 0
    with JournalReader(state / "journal.db") as reader:
        assert "adapter" not in reader.run(3).provenance
