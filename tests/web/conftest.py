"""A tiny journal by the project's own writer, and the page over it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the page's extra is not installed: pip install 'riwoa[web]'")

from starlette.testclient import TestClient

from riwoa.ctl.web import SocketDaemon
from riwoa.paths import StatePaths
from riwoa.web.access import Gate
from riwoa.web.application import application
from riwoa.web.journal import Journal
from riwoa.web.observer import Observer
from riwoa.web.tokens import TokenStore
from riwoa_storage.events import SearchConverged
from riwoa_storage.records import GenerationRecord
from riwoa_storage.writer import JournalWriter
from tests.storage import samples


async def _begin(writer: JournalWriter, run_id: int) -> None:
    for candidates in (5, 6):
        await writer.put_event(SearchConverged(run_id=run_id, candidates=candidates))
    await writer.put_requests([samples.request(run_id, 0, 2)])
    await writer.put_replies([samples.reply(f"{run_id}/0/2")])


def _with_leader(g: GenerationRecord) -> GenerationRecord:
    """A generation whose leader is its last candidate; the first of generation 1 is the model's."""
    individuals = list(g.individuals)
    if g.generation == 1:
        individuals[0] = samples.individual(1, 0, operator="semantic", request_id=f"{g.run_id}/0/2", parent=(0, 2))
    best = individuals[-1]
    leader = {
        "generation": g.generation,
        "slot": best.slot,
        "fitness": best.fitness,
        "metrics": dict(best.metrics),
        "architecture": dict(best.architecture),
        "architecture_key": best.architecture_key,
        "feasible": True,
        "target_ms": 12.5,
    }
    return samples.generation(
        g.run_id,
        g.generation,
        individuals=tuple(individuals),
        leader=leader,
        joined_requests=(f"{g.run_id}/0/2",) if g.generation == 1 else (),
    )


@pytest.fixture(scope="session")
def web_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: one of a generation, and one of 4 with 3 candidates each, a reply and two events."""
    path = tmp_path_factory.mktemp("web") / "journal.db"

    async def write() -> None:
        await samples.write_run(path, 1)
        await samples.write_run(path, 4, edit=_with_leader, before=_begin)

    asyncio.run(write())
    return path


@pytest.fixture
def state(tmp_path: Path, web_journal: Path) -> Path:
    """A state directory with that journal."""
    (tmp_path / "journal.db").write_bytes(web_journal.read_bytes())
    return tmp_path


@pytest.fixture
def paths(state: Path) -> StatePaths:
    return StatePaths(state)


def page(paths: StatePaths, *, open_reading: bool = True, client: tuple[str, int] = ("127.0.0.1", 5000)) -> TestClient:
    """A client of the page, as if it came from an address."""
    journal = Journal(paths.journal)
    gate = Gate(TokenStore(paths), open_reading=open_reading)
    app = application(gate, Observer(SocketDaemon(paths), journal), journal)
    return TestClient(app, base_url="http://localhost:8321", client=client, raise_server_exceptions=False)


@pytest.fixture
def client(paths: StatePaths) -> Iterator[TestClient]:
    with page(paths) as client:
        yield client


def bearer(paths: StatePaths, *scopes: str, expires_s: float | None = 60.0, name: str = "eva") -> dict[str, str]:
    """The header of a new token."""
    return {"authorization": f"Bearer {TokenStore(paths).create(name, scopes, expires_s)[1]}"}
