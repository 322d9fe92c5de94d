"""The protocol's stages in one folder: each writes its result durably, and none is done twice.

    job.json                   what was asked for; another request is refused
    supernet.safetensors       CIFAR-100's protocol, where no checkpoint was given
    search.toml  search/       the daemon's configuration and its state; only where no other search is judged
    chosen.json                pictures and backbone; winner, largest, random: architectures, latencies, multiply-adds
    networks/NAME/             spec.json, training.pt while it trains, model.safetensors, result.json
    corruptions.jsonl          correct answers by corruption and severity, a line each, as they come
    report.json  report.svg

Killed at any moment and started again it continues: the search by its journal, a retraining by its last checkpoint, the
corruptions by the line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from riwoa.datasets.catalogue import check_every_split, task_of
from riwoa.datasets.cifar import find_cifar100
from riwoa.errors import InputError, OracleError
from riwoa.export import found_network, read_winner
from riwoa.files.ownership import json_object, opened_file, output_directory
from riwoa.hardware.lut import LatencyTable
from riwoa.ipc.child import child_command, child_environment
from riwoa.ipc.job import run_job
from riwoa.parsing import parse_json
from riwoa.paths import StatePaths
from riwoa.search.rng import generator
from riwoa.search.space import Space
from riwoa.supernet.geometry import Backbone, macs
from riwoa.supernet.network import ArchitectureError, checked_config
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.validate.corrupted import CorruptedSet, MadeSet, PublishedSet
from riwoa.validate.corruptions import frost_photographs, frost_procedural
from riwoa.validate.judging import Advance, Counts, FinishedNetwork, count_all
from riwoa.validate.pictures import judging_pictures
from riwoa.validate.report import Judged, summary, svg
from riwoa.validate.retrain import Folder, Spec, alone, inherit, prepare, read_result
from riwoa.validate.settings import Settings, check_paths, search_toml, spec_of
from riwoa_storage.durable import replace_durably

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask

Bar = Callable[[str, str], contextlib.AbstractContextManager[Advance]]

ROLES: Mapping[str, str] = {
    "winner": "the search's best, retrained",
    "largest": "the largest subnet, retrained",
    "random": "a random subnet as slow as the winner, retrained",
    "inherited": "the winner with the supernet's weights",
}
RETRAINED = ("largest", "winner", "random")  # the longest first
STAGES = ("supernet", "search", "choose", *(f"retrain:{name}" for name in RETRAINED), "inherited", "corruptions")
_SAME_COST = 0.01  # the random subnet's latency is within this share of the winner's
_DRAWS, _WALKS, _STEPS = 5000, 20, 1000


@dataclass(frozen=True, slots=True)
class ChosenNetwork:
    """An architecture of the comparison, and what it costs; no latency where no table is known."""

    architecture: Mapping[str, Any]
    latency_ms: float | None
    macs: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is compared, and on which pictures."""

    oracle: SupernetSpec
    networks: Mapping[str, ChosenNetwork]

    def to_json(self) -> dict[str, Any]:
        """What ``chosen.json`` holds."""
        rows = {name: asdict(network) for name, network in self.networks.items()}
        return {"oracle": self.oracle.to_json(), "networks": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Chosen:
        """The choice of ``to_json``."""
        networks = {name: ChosenNetwork(**row) for name, row in data["networks"].items()}
        return cls(SupernetSpec.from_json(data["oracle"]), networks)

    @property
    def is_cifar100(self) -> bool:
        """Whether the pictures are CIFAR-100's."""
        return self.oracle.data != "digits" and find_cifar100(Path(self.oracle.data)) is not None


class Job:
    """The stages on one folder, in order."""

    def __init__(self, out: Path, settings: Settings, jobs: int, bar: Bar) -> None:
        self.out = out
        self.settings = settings
        self._jobs = jobs
        self._bar = bar

    def run(self, only: str | None = None) -> dict[str, Any] | None:
        """Do every stage that is not done, or one alone; returns the report, None after a single stage.

        Retrainings alone may run beside each other and beside the job: each holds its own network's lock.

        Raises:
            UsageError: the folder holds something else.
            RiwoaError, StorageError: the reason why a stage cannot be done.
        """
        output_directory(self.out, _is_job)
        if only is not None and only.startswith("retrain:"):
            self._begin()
            self._specify(self._choose())
            self._retrain([only.removeprefix("retrain:")])
            return None
        with alone(self.out):
            self._begin()
            return self._stages(only)

    def _stages(self, only: str | None) -> dict[str, Any] | None:
        if self.settings.searches and not self._chosen.exists():
            self._train_supernet()
            if only == "supernet":
                return None
            self._search()
        if only in ("supernet", "search"):
            return None
        chosen = self._choose()
        self._specify(chosen)
        if only == "choose":
            return None
        if only == "inherited":
            self._inherit()
            return None
        if only is None:
            self._retrain([name for name in RETRAINED if name in chosen.networks])
            self._inherit()
        networks = [name for name in ROLES if self._folder(name).result.exists()]
        if not networks:
            raise InputError(f"no network in {self.out / 'networks'} is trained yet; leave --only out")
        report = self._report(networks, chosen)
        return report if only is None else None

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Keep what is asked for, or compare it with what was.

        Raises:
            InputError: something else was asked for in this folder, or a path that leads nowhere.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        path, wanted = self.out / "job.json", self.settings.to_json()
        if not path.exists():
            check_paths(self.settings)
            replace_durably(path, _json(wanted))
            return
        found = _read_json(path)
        if "protocol" not in found:
            raise InputError(
                f"{self.out} was begun by an earlier riwoa, which retrained in another way; what it came to stays in "
                "its report.json: give another --out"
            )
        # Settings that an earlier riwoa did not know stand at their defaults; options that it kept of a supernet's
        # training decided nothing where none is trained.
        usual = Settings(self.settings.protocol, self.settings.data).to_json()
        before, now = _flat(usual) | _flat(found), _flat(wanted)
        if not self.settings.supernet_options:
            before["supernet_options"] = now["supernet_options"]
        changed = [
            f"{k} ({before.get(k)!r} -> {now.get(k)!r})" for k in {**before, **now} if before.get(k) != now.get(k)
        ]
        if changed:
            raise InputError(
                f"{self.out} was begun with other settings: {', '.join(changed)}; give the same ones to "
                "go on, or another --out"
            )

    # -- supernet and search -------------------------------------------------------------------------------------------

    @property
    def _checkpoint(self) -> Path | None:
        """The supernet that is searched; None where the search has one of its own, or trains it."""
        if self.settings.supernet is not None:
            return Path(self.settings.supernet)
        return self.out / "supernet.safetensors" if self.settings.protocol == "cifar100" else None

    @property
    def _chosen(self) -> Path:
        return self.out / "chosen.json"

    @property
    def _search_state(self) -> StatePaths:
        return StatePaths(self.settings.state or self.out / "search")

    def _train_supernet(self) -> None:
        """CIFAR-100's, by its own recipe; any other the search trains itself."""
        s = self.settings
        if self._checkpoint is None or s.supernet is not None or self._checkpoint.exists():
            return
        command = ["riwoa.ctl", "supernet", "train", str(s.data), "--out", str(self._checkpoint)]
        command += [*s.supernet_options, "--device", s.device]
        self._call(command, "the supernet's training")

    def _search(self) -> None:
        """Run the daemon's own search, which resumes by itself."""
        config = self.out / "search.toml"
        if not config.exists():
            replace_durably(config, search_toml(self.settings, self._checkpoint).encode())
        self._call(
            ["riwoa.service", "--foreground", "--config", str(config), "--state", self._search_state.directory],
            "the search",
        )

    def _call(self, module: Sequence[str], what: str) -> None:
        """Run one of riwoa's own commands with the terminal's standard error; standard output stays the report's.

        Raises:
            OracleError: it failed, and has said why.
        """
        with _child([*module], self.settings.threads, stdout=sys.stderr) as process:
            code = process.wait()
        if code:
            raise OracleError(f"{what} ended with exit code {code}, see above; mend that and start again")

    # -- the comparison ------------------------------------------------------------------------------------------------

    def _choose(self) -> Chosen:
        if not self._chosen.exists():
            spec, winner = self._winner()
            check_every_split(task_of(spec), spec)
            table = self._table()
            found = {"winner": winner}
            if self.settings.controls:
                space = mobilenet_space(spec.resolutions)
                largest = np.array([len(gene.choices) - 1 for gene in space.genes])
                found["largest"] = space.architecture(largest)
                cost = _cost(spec, table)
                found["random"] = same_cost(space, winner, cost, self.settings.seed)
            chosen = Chosen(spec, {name: _priced(a, spec, table) for name, a in found.items()})
            replace_durably(self._chosen, _json(chosen.to_json()))
        return Chosen.from_json(_read_json(self._chosen))

    def _winner(self) -> tuple[SupernetSpec, Mapping[str, Any]]:
        """What the search was of, with its checkpoint where that lies now, and what it found."""
        s = self.settings
        if s.architecture is not None:
            return spec_of(s), s.architecture
        journal = self._search_state.journal
        winner = read_winner(journal)
        if winner.run.status != "finished":
            raise InputError(f"the search in {journal} is not finished; let riwoad finish it, or leave --only out")
        _, found = found_network(winner, journal)
        if found.spec.get("kind") != "supernet":
            kind = found.spec.get("kind")
            raise InputError(f"{journal} searched a {kind}, which has no network to retrain; name another --state")
        spec = SupernetSpec.from_json(found.spec)
        given = {"width_mult": s.width_mult, "stem": s.stem}
        other = [f"{k} = {getattr(spec, k)}, not {v}" for k, v in given.items() if v not in (None, getattr(spec, k))]
        if other:
            raise InputError(f"{journal} searched with {', '.join(other)}; leave --width and --stem out")
        data = spec.data if s.data is None else s.data
        device: Literal["cpu", "cuda"] = "cuda" if s.device == "cuda" else "cpu"
        return replace(spec, data=data, device=device, threads=s.threads), winner.architecture

    def _table(self) -> LatencyTable | None:
        s = self.settings
        named = s.table
        if named is None and (s.searches or s.state is not None):
            named = str(self._search_state.latency_table)
        return None if named is None else LatencyTable.load(Path(named))

    def _specify(self, chosen: Chosen) -> None:
        retraining = self.settings.retraining
        if chosen.is_cifar100:
            retraining = replace(retraining, protocol="cifar100")
        inherited = ("inherited",) if self._inherits else ()
        for name in (*chosen.networks, *inherited):
            folder = self._folder(name)
            architecture = chosen.networks["winner" if name == "inherited" else name].architecture
            spec = Spec(architecture, chosen.oracle, retraining)
            if not folder.spec.exists():
                folder.path.mkdir(parents=True, exist_ok=True)
                replace_durably(folder.spec, _json(spec.to_json()))

    @property
    def _inherits(self) -> bool:
        s = self.settings
        return s.controls and (s.architecture is None or s.supernet is not None)

    def _folder(self, name: str) -> Folder:
        return Folder(self.out / "networks" / name)

    # -- networks ------------------------------------------------------------------------------------------------------

    def _retrain(self, names: Sequence[str]) -> None:
        """Retrain networks, each in a process of its own, several at once."""
        left = [name for name in names if not self._folder(name).result.exists()]
        missing = [name for name in left if not self._folder(name).spec.exists()]
        if missing:
            raise InputError(f"there is no {missing[0]} to retrain; without --controls there is the winner alone")
        if not left:
            return
        # A GPU is shared; on a CPU each has its own cores.
        places = self._jobs if self.settings.device == "cuda" else self._jobs // self.settings.threads
        with self._bar("retraining", "step") as advance:
            asyncio.run(self._retrain_all(left, max(1, places), advance))

    async def _retrain_all(self, names: Sequence[str], at_once: int, advance: Advance) -> None:
        done, total, free = dict.fromkeys(names, 0), dict.fromkeys(names, 0), asyncio.Semaphore(at_once)

        async def retrain_one(name: str) -> None:
            def tell(event: Mapping[str, Any]) -> None:
                done[name], total[name] = event["done"], event["total"]
                steps = max(total.values()) * len(names)  # all alike, as far as they are known
                advance(sum(done.values()), steps, f"{name}: {event['words']}")

            async with free:
                folder, threads = str(self._folder(name).path), self.settings.threads
                await run_job("riwoa.validate.retrain", [folder], threads, f"retraining the {name}", tell)

        jobs = [asyncio.ensure_future(retrain_one(name)) for name in names]
        try:
            await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    def _inherit(self) -> None:
        folder = self._folder("inherited")
        if folder.spec.exists() and not folder.result.exists():
            inherit(folder)

    # -- corruptions ---------------------------------------------------------------------------------------------------

    def _report(self, names: Sequence[str], chosen: Chosen) -> dict[str, Any]:
        """Judge the networks on corrupted pictures, and write what all of it came to."""
        prepare(chosen.oracle)
        task = task_of(chosen.oracle)
        corrupted = self._corrupted(task, chosen)
        correct = self._judge(names, task, corrupted, torch.device(chosen.oracle.device))
        judged = []
        for name in names:
            priced = chosen.networks["winner" if name == "inherited" else name]
            result = read_result(self._folder(name))
            judged.append(Judged(name, ROLES[name], result, priced.latency_ms, corrupted.images, correct[name]))
        facts = {
            "task": "cifar100" if chosen.is_cifar100 else task.name,
            "settings": self.settings.to_json(),
            "random_matches": "macs" if judged[0].latency_ms is None else "latency_ms",
        }
        data = summary(judged, facts, corrupted.facts)
        replace_durably(self.out / "report.json", _json(data))
        replace_durably(self.out / "report.svg", svg(data).encode())
        return data

    def _judge(
        self, names: Sequence[str], task: ImageTask, corrupted: CorruptedSet, device: torch.device
    ) -> dict[str, dict[str, list[int]]]:
        """Correct answers by network and corruption, a number a severity."""
        networks = {name: FinishedNetwork.load(self._folder(name), task, device) for name in names}
        with (
            self._bar("corruptions", "set") as advance,
            contextlib.closing(Counts(self.out / "corruptions.jsonl", corrupted.facts)) as counts,
        ):
            return count_all(corrupted, networks, counts, self._jobs, advance)

    def _corrupted(self, task: ImageTask, chosen: Chosen) -> CorruptedSet:
        s = self.settings
        if s.corrupted is not None:
            if not chosen.is_cifar100:
                raise InputError("--corrupted is of CIFAR-100's own test images, and others are judged; leave it out")
            return PublishedSet(Path(s.corrupted), s.images)
        frost = frost_procedural() if s.frost is None else frost_photographs(Path(s.frost))
        images, labels = judging_pictures(task, s.images)
        return MadeSet(images, labels, task.sha256, s.seed, frost)


def _priced(architecture: Mapping[str, Any], spec: SupernetSpec, table: LatencyTable | None) -> ChosenNetwork:
    config = ofa_config(architecture)
    latency_ms = None if table is None else table.latency_ms(config)
    return ChosenNetwork(
        dict(architecture), latency_ms, macs(config, Backbone(spec.width_mult, spec.n_classes, spec.stem))
    )


def _cost(spec: SupernetSpec, table: LatencyTable | None) -> Callable[[Mapping[str, Any]], float]:
    """Latency where a table is known, else multiply-adds."""

    def cost(architecture: Mapping[str, Any]) -> float:
        priced = _priced(architecture, spec, table)
        return float(priced.macs) if priced.latency_ms is None else priced.latency_ms

    return cost


def _is_job(folder: Path) -> bool:
    """Whether a folder is a job's, of an earlier riwoa too; one that was locked and got no further is, too."""
    keys = json_object(folder / "job.json").keys()
    begun = {"protocol", "retraining"} <= keys or {"recipe", "backbone"} <= keys
    return begun or all(path.name == "lock" or path.name.startswith(".") for path in folder.iterdir())


def same_cost(
    space: Space, architecture: Mapping[str, Any], cost: Callable[[Mapping[str, Any]], float], seed: int
) -> Mapping[str, Any]:
    """A random other architecture that costs the same within 1 %: the first of 5,000 uniform draws that does.

    Where the winner is near an edge of the space none may. Then draws are walked towards its cost, one random choice
    after another.

    Raises:
        InputError: that leads nowhere either.
    """
    wanted = cost(architecture)

    def fits(found: Mapping[str, Any]) -> bool:
        return found != architecture and abs(cost(found) - wanted) <= _SAME_COST * wanted

    rng = generator(seed, 0, "validate.same_cost")
    sizes = np.array([len(gene.choices) for gene in space.genes])
    draws = (rng.random((_DRAWS, len(sizes))) * sizes).astype(np.int64)
    for indices in draws:
        if fits(found := space.architecture(indices)):
            return found
    for indices in draws[:_WALKS]:
        away = math.inf
        for _ in range(_STEPS):
            stepped, gene = indices.copy(), int(rng.integers(len(sizes)))
            stepped[gene] = rng.integers(sizes[gene])
            if fits(found := space.architecture(stepped)):
                return found
            if (now := abs(cost(found) - wanted)) <= away:
                indices, away = stepped, now
    raise InputError(
        f"no random architecture costs what the winner does ({wanted:.6g}) within {_SAME_COST:.0%}; it is too near the "
        "edge of the space: use --no-controls"
    )


def read_architecture(path: Path) -> Mapping[str, Any]:
    """An architecture as riwoa writes it, bare or inside the export's architecture.json.

    Raises:
        InputError: the file is missing, or holds none.
    """
    data = _read_json(path)
    found = data.get("architecture", data)
    try:
        checked_config(ofa_config(found))
    except (ArchitectureError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} holds no architecture of the Once-for-All space ({error}); give the architecture.json of "
            "`riwoactl export`, or an object with resolution, stage1.depth, stage1.block1.kernel, ..."
        ) from None
    return dict(found)


@contextlib.contextmanager
def _child(module: list[str], threads: int, stdout: Any) -> Iterator[subprocess.Popen[str]]:
    """``python -m module ...``, its standard input held open: it leaves when this process does."""
    command = child_command(*module)
    environment = child_environment(threads)
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=stdout, text=True) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Leaves of nested objects by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{above}{name}.") if inner else {f"{above}{name}": value}
    return found


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with opened_file(path) as stream:
            content = parse_json(stream.read(2**20 + 1), 2**20)
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a JSON object ({error})") from None
    return content
