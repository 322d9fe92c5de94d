"""Committed evaluations a second: riwoa's journal against Optuna's storages, on the same disk and the same genes.

Every contender draws uniform architectures of the 46-gene space and makes each result survive a power cut: riwoa with
``synchronous=FULL``, Optuna's RDB with SQLite's default of FULL, Optuna's journal file with an fsync an append. Rounds
are interleaved, every round starts from an empty store (which favours stores that slow down as they grow), and a rate
is the median over rounds.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.files.ownership import unwritable
from riwoa.search.codec import Codec
from riwoa.search.rng import generator
from riwoa.supernet.space import mobilenet_space
from riwoa_storage.records import EvaluationRecord, GenerationRecord, IndividualRecord
from riwoa_storage.writer import JournalWriter

GENERATION = 20  # evaluations
GENERATIONS = 20  # a round
RDB_TRIALS, FILE_TRIALS = 8, 40  # a round: fewer, for they take longer
OPTUNA_HINT = "pip install 'riwoa[bench]'"
_STATE_BYTES = 41_000  # of RI-IWOA: 20 vectors of 46, a covariance and a basis

EvaluationRound = Callable[[Path, int], float]  # directory, seed -> evaluations a second
Report = Callable[[int, int], None]


def bench_journal(directory: Path, repeats: int = 5, *, progress: Report = lambda done, total: None) -> dict[str, Any]:
    """Measure; ``ratio`` is ours by Optuna's RDB, None without Optuna.

    Raises:
        StateDirectoryError, FullDiskError: ``directory`` cannot be written.
    """
    contenders = dict(_contenders())
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for repeat in range(repeats):
            for i, (name, measure) in enumerate(contenders.items()):
                folder = Path(tempfile.mkdtemp(prefix="bench-journal-", dir=directory))
                try:
                    rates[name].append(measure(folder, repeat))
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                progress(repeat * len(contenders) + i + 1, repeats * len(contenders))
    except OSError as error:
        raise unwritable(directory, error, "name another --directory") from None
    return _result(rates, directory, repeats)


def _contenders() -> Iterator[tuple[str, EvaluationRound]]:
    yield "riwoa", lambda folder, seed: asyncio.run(_ours(folder, seed, one_by_one=False))
    yield "riwoa_commit_each", lambda folder, seed: asyncio.run(_ours(folder, seed, one_by_one=True))
    if importlib.util.find_spec("optuna") is not None:
        yield "optuna_rdb", _optuna_rdb
        yield "optuna_journal_file", _optuna_file


def _result(rates: dict[str, list[float]], directory: Path, repeats: int) -> dict[str, Any]:
    names = ("riwoa", "riwoa_commit_each", "optuna_rdb", "optuna_journal_file")
    per_s = {name: statistics.median(rates[name]) if name in rates else None for name in names}
    kind = file_system(directory)
    absent = None if "optuna_rdb" in rates else f"Optuna is not installed: {OPTUNA_HINT}"

    def ratio(ours: str, theirs: str) -> float | None:
        a, b = per_s[ours], per_s[theirs]
        return None if a is None or b is None else a / b

    return {
        "bench": "journal",
        "ratio": ratio("riwoa", "optuna_rdb"),
        "ratio_journal_file": ratio("riwoa", "optuna_journal_file"),
        "ratio_commit_each": ratio("riwoa_commit_each", "optuna_rdb"),
        "ratio_commit_each_journal_file": ratio("riwoa_commit_each", "optuna_journal_file"),
        "rows": [
            {"store": name, "evaluations_per_s": per_s[name], "rounds": rates.get(name), "note": _NOTES[name]}
            | ({"missing": absent} if per_s[name] is None else {})
            for name in names
        ],
        "settings": {
            "genes": len(mobilenet_space((24, 32, 40))),
            "generation": GENERATION,
            "repeats": repeats,
            "directory": str(directory),
            "file_system": kind,
            "power_safe": kind not in ("tmpfs", "ramfs"),
        },
    }


_NOTES = {
    "riwoa": "20 evaluations in one transaction, then their generation (individuals, state, digest) in another",
    "riwoa_commit_each": "each evaluation in its own transaction, as results arrive, then the generation",
    "optuna_rdb": "RDBStorage on SQLite, RandomSampler",
    "optuna_journal_file": "JournalStorage on JournalFileBackend, RandomSampler",
}


# -- ours --------------------------------------------------------------------------------------------------------------


async def _ours(folder: Path, seed: int, *, one_by_one: bool) -> float:
    space = mobilenet_space((24, 32, 40))
    codec = Codec(space, seed)
    state = np.random.Generator(np.random.Philox(seed)).bytes(_STATE_BYTES)
    async with await JournalWriter.open(folder / "journal.db") as journal:
        run_id = await journal.begin_run({"seed": seed}, {})
        start = time.perf_counter()
        for generation in range(GENERATIONS):
            vectors = generator(seed, generation, "bench.journal").random((GENERATION, codec.dimension))
            individuals = tuple(_individual(codec, slot, v) for slot, v in enumerate(vectors))
            evaluations = [_evaluation(i) for i in individuals]
            if one_by_one:
                for evaluation in evaluations:
                    await journal.put_evaluation(evaluation)
            else:
                await journal.put_evaluations(evaluations)
            await journal.commit_generation(_generation(run_id, generation, individuals, state))
        return GENERATIONS * GENERATION / (time.perf_counter() - start)


def _individual(codec: Codec, slot: int, vector: np.ndarray[Any, np.dtype[np.float64]]) -> IndividualRecord:
    indices = codec.decode(vector[None, :])[0]
    value = float(vector[0])
    return IndividualRecord(
        slot=slot,
        operator="init",
        parent=None,
        genotype=vector.astype("<f8").tobytes(),
        architecture=codec.space.architecture(indices),
        architecture_key=codec.space.key(indices),
        status="ok",
        metrics={"accuracy": value, "latency_ms": 1.0 + value, "macs": 1_000_000, "parameters": 100_000},
        fitness=value,
        fitness_version="v1:T=2.0:w=-1.0",
        cache_hit=False,
    )


def _evaluation(i: IndividualRecord) -> EvaluationRecord:
    return EvaluationRecord(
        oracle_version="bench",
        architecture_key=i.architecture_key,
        architecture=i.architecture,
        status="ok",
        metrics=i.metrics,
        error=None,
        attempts=1,
        worker="oracle-0",
        duration_s=0.1,
        created_unix_s=time.time(),
    )


def _generation(
    run_id: int, generation: int, individuals: tuple[IndividualRecord, ...], state: bytes
) -> GenerationRecord:
    best = individuals[0]
    return GenerationRecord(
        run_id=run_id,
        generation=generation,
        phase="search",
        config_revision=0,
        state=state,
        counters={"evaluations": GENERATION * (generation + 1), "cache_hits": 0, "failures": 0},
        leader={"generation": generation, "slot": 0, "fitness": best.fitness, "metrics": dict(best.metrics)},
        inputs={},
        individuals=individuals,
        duration_s=1.0,
    )


# -- Optuna's ----------------------------------------------------------------------------------------------------------


def _optuna_rdb(folder: Path, seed: int) -> float:
    from optuna.storages import RDBStorage

    storage = RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    try:
        return _optuna(storage, seed, RDB_TRIALS)
    finally:
        storage.engine.dispose()


def _optuna_file(folder: Path, seed: int) -> float:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return _optuna(JournalStorage(JournalFileBackend(str(folder / "optuna.log"))), seed, FILE_TRIALS)


def _optuna(storage: Any, seed: int, trials: int) -> float:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    genes = mobilenet_space((24, 32, 40)).genes
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=seed), direction="maximize")
    start = time.perf_counter()
    for _ in range(trials):
        trial = study.ask()
        for gene in genes:
            trial.suggest_categorical(gene.name, gene.choices)
        study.tell(trial, 0.5)
    return trials / (time.perf_counter() - start)


def file_system(path: Path) -> str:
    """The kind of file system that holds a path ("ext4", "tmpfs", ...), "unknown" where the kernel does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    place = os.path.realpath(path)
    holding = [m for m in mounts if len(m) > 2 and os.path.commonpath([place, _unescape(m[1])]) == _unescape(m[1])]
    # The longest mount point holds it; of two mounts on one point the later lies on top.
    return max(enumerate(holding), key=lambda item: (len(item[1][1]), item[0]))[1][2] if holding else "unknown"


def _unescape(mount_point: str) -> str:
    return mount_point.replace("\\040", " ")
