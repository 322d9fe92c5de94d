"""Is the language model worth it, and does it learn? Proposals at the same parents, before and after training.

Fixed beforehand: the numbers of proposals and trainings, and the seeds of the searches that the parents come from,
which nothing was ever tuned on. Parents of training rounds and of judging come from different searches. A training
round asks for proposals at its parents, keeps those that beat theirs, holds every fourth out for ever, and trains on
the rest; the gate decides as it does in a search. Then everybody proposes at the judging parents:

- ``before`` and ``after``: the language model without and with its last adapter, the same prompts and seeds;
- ``placebo``: a uniform draw from what the model's grammar allows, patches of the same size (ruling 20);
- ``listed``: a uniform draw from the changes that the prompt lists. What is won over the placebo by reading the list
  shows here; what the model adds to the list is its win over this one;
- ``greedy``: the listed change that spends most of the headroom: the best rule that needs no model and no history;
- ``spiral``: what the optimiser would have done.

A win is a child fitter than its parent on the same images. ``fresh`` is the share of different architectures among the
proposals that no search had evaluated before: a model that repeats its favourite patch finds nothing.

Every step is kept in a folder, so a killed benchmark run again continues.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.bench.parents import Parent, collect_parents
from riwoa.bench.proposer import SEED, Outcome, Proposer, Say
from riwoa.bench.tasks import Task, open_task
from riwoa.cognition.engine import LanguageModelProvider
from riwoa.cognition.gate import judge
from riwoa.cognition.model_process import EngineLimits
from riwoa.cognition.prompt import generation_request_of, listed_changes
from riwoa.cognition.protocol import (
    Example,
    ModelSpec,
    Trained,
    TrainingJob,
    one_of_each,
)
from riwoa.config.schema import Config
from riwoa.errors import ModelError, OracleError, UsageError
from riwoa.files.ownership import json_object, output_directory
from riwoa.hardware.lut import LatencyTable
from riwoa.ipc.child import child_command, child_environment
from riwoa.run.credit import wilson
from riwoa.run.offers import placebo_patch, seed_of
from riwoa.run.provision import provide
from riwoa.run.style import Style
from riwoa.search.fitness import FloatArray
from riwoa.search.paired import sign_flip_p
from riwoa.search.rng import generator
from riwoa_storage.durable import replace_durably
from riwoa_storage.records import ReplyRecord, RequestRecord

JUDGED_SEEDS = range(940_000, 940_100)
TRAINING_SEEDS = range(950_000, 950_100)
PROBE_SEEDS = range(960_000, 960_010)
HELD_OUT_EVERY = 4
_BOOTSTRAPS = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is asked, learned and judged."""

    proposals: int = 500  # of each operator at the judging parents
    trainings: int = 5
    round_proposals: int = 96  # of each training round
    probes: int = 16
    speed_requests: int = 32
    epochs: int = 2
    batch: int = 4


class Kept:
    """Steps that are done, one JSON file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = output_directory(folder, lambda path: bool(json_object(path / "made_with.json")))
        self.folder.mkdir(parents=True, exist_ok=True)

    async def same(self, what: Mapping[str, Any]) -> None:
        """Refuse to mix what was made otherwise.

        Raises:
            UsageError: the folder holds steps of another model or of other settings.
        """

        async def make() -> Mapping[str, Any]:
            return what

        if await self.step("made_with", make) != json.loads(json.dumps(what)):
            raise UsageError(f"{self.folder} holds steps of another model or of other settings; name another --out")

    async def step(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """The step's result: read, or made and written."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            made = await make()
            replace_durably(file, json.dumps(made).encode())
        return json.loads(file.read_text(encoding="utf-8"))


async def bench_cognition(
    config: Config,
    table: LatencyTable,
    out: Path,
    *,
    tasks: Sequence[str] = ("predictor", "embedded"),
    settings: Settings = Settings(),
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """``ratio``: the win rate after training by the placebo's, on the first task.

    Args:
        config: the daemon's.
        table: latencies of this device.
        out: where steps are kept; made for one model and one setting.
        tasks: "predictor", "embedded".
        settings: how much is asked and learned.
        say: told of each step.

    Raises:
        ModelError: no language model is here.
        RiwoaError: the oracle or the model fails.
    """
    slots = config.cognition.model_copy(
        update={"provider": "model", "role": "slot"}
    )  # a proposal a request is what is judged
    provision = await provide(lambda: slots, None, lambda _: None)
    if provision.spec is None:
        raise ModelError(f"no language model to judge: {provision.reason}")
    limits = EngineLimits(memory_limit_bytes=config.cognition.memory_bytes)
    provider = LanguageModelProvider(provision.spec, limits=lambda: limits)
    found: dict[str, Any] = {}
    try:
        for name in tasks:
            async with open_task(name, config, table, out / "evaluations.jsonl") as task:
                bench = Bench(task, provider, provision.spec, provision.style, settings, out / name, say)
                found[name] = await bench.run()
                if "speed" not in found:
                    found["speed"] = await bench.speed()
    finally:
        await provider.close()
    first = found[tasks[0]]["operators"]
    return {
        "bench": "cognition",
        "ratio": first["after"]["win_rate"] / max(first["placebo"]["win_rate"], 1e-9),
        "model": provision.spec.name,
        **found,
        "settings": {**asdict(settings), "writing": provision.style.settings.to_json(), "seed": SEED},
    }


class Bench:
    """One task's proposals, trainings and judgement.

    Args:
        task: what is judged on.
        provider: the language model's process.
        spec: its model.
        style: how it writes and learns.
        settings: how much.
        folder: where steps and adapters are kept.
        say: told of each step.
    """

    def __init__(
        self,
        task: Task,
        provider: LanguageModelProvider,
        spec: ModelSpec,
        style: Style,
        settings: Settings,
        folder: Path,
        say: Say,
    ) -> None:
        self._task = task
        self._provider = provider
        self._spec = spec
        self._style = style
        self._settings = settings
        self._kept = Kept(folder)
        self._say = say
        self._proposer = Proposer(task, provider, spec.name, style, say)

    async def run(self) -> dict[str, Any]:
        """Train, then judge.

        Raises:
            CognitionError: the language model fails.
        """
        s = self._settings
        writing = {**self._style.settings.to_json(), "learning_rate": self._style.learning_rate}
        made_with = {
            "model": self._spec.name,
            "settings": asdict(s),
            "writing": writing,
            "task": dict(self._task.facts),
        }
        await self._kept.same({**made_with, "template": asdict(self._style.template)})
        pool = await self._parents(TRAINING_SEEDS, s.trainings * s.round_proposals)
        rounds: list[dict[str, Any]] = []
        held_out: list[dict[str, str]] = []
        adapter: Path | None = None
        for number in range(s.trainings):
            parents = pool[number * s.round_proposals : (number + 1) * s.round_proposals]
            one = await self._round(number, parents, held_out, adapter)
            held_out = one["held_out_after"]
            rounds.append(one)
            if one["accepted"]:
                adapter = self._adapter(number)
        judged = await self._judge(await self._parents(JUDGED_SEEDS, s.proposals), adapter)
        return {
            "task": self._task.name,
            **self._task.facts,
            "operators": judged,
            "adapter_judged": adapter is not None,  # false: every training was rejected, "after" is the bare model
            "comparisons": _comparisons(judged),
            "trainings": [{k: v for k, v in r.items() if k not in ("held_out_after", "memories")} for r in rounds],
            "learning": await self._learning(rounds, adapter, held_out),
        }

    async def speed(self) -> dict[str, Any]:
        """Tokens a second in the process, in batches, against transformers' plain loop over the same requests."""

        async def make() -> dict[str, Any]:
            parents = await self._parents(JUDGED_SEEDS, self._settings.speed_requests)
            requests = self._proposer.requests(parents, "speed")
            await self._proposer.use(None)
            await self._proposer.replies(requests[:1])  # loads the model
            replies, seconds = await self._proposer.replies(requests)
            lengths = [r.tokens for r in replies]
            self._say("the plain loop over the same requests")
            plain = await plain_tokens_per_s(self._spec, requests, lengths)
            ours = sum(lengths) / seconds
            return {"requests": len(requests), "tokens_per_s": ours, "plain_tokens_per_s": plain, "ratio": ours / plain}

        speed: dict[str, Any] = await self._kept.step("speed", make)
        return speed

    # -- training ----------------------------------------------------------------------------------------------------

    async def _parents(self, seeds: Sequence[int], count: int) -> list[Parent]:
        searches = math.ceil(count / self._task.parents_a_search)
        found: list[Parent] = []
        self._say(f"{self._task.name}: parents from {searches} searches")
        while len(found) < count:
            if searches > len(seeds):
                raise OracleError(f"{len(seeds)} searches gave {len(found)} different parents, {count} are wanted")
            found = await collect_parents(self._task, seeds[:searches], self._task.parents_at, count)
            searches += 1
        return found

    async def _round(
        self, number: int, parents: Sequence[Parent], held_out: list[dict[str, str]], adapter: Path | None
    ) -> dict[str, Any]:
        async def make() -> dict[str, Any]:
            self._say(f"{self._task.name}: training round {number + 1} of {self._settings.trainings}")
            await self._proposer.use(adapter)
            requests = self._proposer.requests(parents, f"round{number}")
            replies, _ = await self._proposer.replies(requests)
            outcomes = await self._proposer.outcomes(parents, self._proposer.patches(requests, replies))
            taught: list[dict[str, str]] = []
            kept = list(held_out)
            for request, reply, outcome in zip(requests, replies, outcomes, strict=True):
                if outcome.won:
                    example = _example(request, reply)
                    (kept if (len(taught) + len(kept)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else taught).append(
                        example
                    )
            trained = await self._train(number, taught, kept)
            verdict = judge(trained)
            return {
                "proposals": len(requests),
                "wins": sum(o.won for o in outcomes),
                "examples": len(taught),
                "held_out": len(kept),
                "accepted": verdict.accepted,
                "reasons": list(verdict.reasons),
                "trained": trained.to_json(),
                "memories": _memories(parents, outcomes),
                "held_out_after": kept,
            }

        one: dict[str, Any] = await self._kept.step(f"round{number}", make)
        self._proposer.remember(one["memories"])
        return one

    async def _train(self, number: int, taught: list[dict[str, str]], kept: list[dict[str, str]]) -> Trained:
        parents = await self._parents(PROBE_SEEDS, self._settings.probes)
        probes = self._proposer.requests(parents, "probe", memories=False)
        job = TrainingJob(
            examples=one_of_each(Example(**e) for e in taught),
            held_out=tuple(Example(**e) for e in kept),
            probes=tuple(generation_request_of(r) for r in probes),
            settings=self._style.settings,
            seed=seed_of(SEED, number, 0, "training"),
            weights_path=str(self._adapter(number).absolute()),
            epochs=self._settings.epochs,
            learning_rate=self._style.learning_rate,
            batch=self._settings.batch,
        )
        return await self._provider.train(
            job, lambda step: self._say(f"{self._task.name}: training {number + 1} {step}")
        )

    def _adapter(self, number: int) -> Path:
        return self._kept.folder / f"adapter{number}.safetensors"

    # -- judging -----------------------------------------------------------------------------------------------------

    async def _judge(self, parents: Sequence[Parent], adapter: Path | None) -> dict[str, Any]:
        requests = self._proposer.requests(parents, "judge")
        rows = {}
        for name, used in (("before", None), ("after", adapter)):
            rows[name] = await self._kept.step(name, lambda used=used: self._model_row(parents, requests, used))  # type: ignore[misc]
        before = [None if o["patch"] is None else len(o["patch"]) for o in rows["before"]["outcomes"]]
        rows["placebo"] = await self._kept.step("placebo", lambda: self._placebo_row(parents, before))
        rows["listed"] = await self._kept.step("listed", lambda: self._listed_row(parents))
        rows["greedy"] = await self._kept.step("greedy", lambda: self._greedy_row(parents))
        rows["spiral"] = await self._kept.step("spiral", lambda: self._spiral_row(parents))
        texts = [rows[name].pop("texts") for name in ("before", "after")]
        rows["after"]["replies_changed"] = float(np.mean([a != b for a, b in zip(*texts, strict=True)]))
        return {name: _summary(row) for name, row in rows.items()}

    async def _model_row(
        self, parents: Sequence[Parent], requests: Sequence[RequestRecord], adapter: Path | None
    ) -> dict[str, Any]:
        await self._proposer.use(adapter)
        replies, seconds = await self._proposer.replies(requests)
        outcomes = await self._proposer.outcomes(parents, self._proposer.patches(requests, replies))
        free, _ = await self._proposer.replies(requests[:48], replace(self._style.settings, grammar=False))
        valid = sum(patch is not None for patch in self._proposer.patches(requests[: len(free)], free))
        return {
            "outcomes": [asdict(o) for o in outcomes],
            "texts": [r.text for r in replies],
            "generation_s": seconds,
            "tokens": sum(r.tokens for r in replies),
            "valid_without_grammar": valid,
            "asked_without_grammar": len(free),
        }

    async def _placebo_row(self, parents: Sequence[Parent], sizes: Sequence[int | None]) -> dict[str, Any]:
        patches = []
        for i, (parent, size) in enumerate(zip(parents, sizes, strict=True)):
            rng = generator(SEED, i, "bench.placebo")
            patches.append(placebo_patch(parent.choices, size or 1, rng))
        return {"outcomes": [asdict(o) for o in await self._proposer.outcomes(parents, patches)]}

    async def _listed_row(self, parents: Sequence[Parent]) -> dict[str, Any]:
        patches = []
        for i, parent in enumerate(parents):
            _, listed = listed_changes(parent.situation(), parent.choices, self._style.template.options)
            patches.append(listed[int(generator(SEED, i, "bench.listed").integers(len(listed)))][0])
        return {"outcomes": [asdict(o) for o in await self._proposer.outcomes(parents, patches)]}

    async def _greedy_row(self, parents: Sequence[Parent]) -> dict[str, Any]:
        patches = [listed_changes(parent.situation(), parent.choices, 1)[1][0][0] for parent in parents]
        return {"outcomes": [asdict(o) for o in await self._proposer.outcomes(parents, patches)]}

    async def _spiral_row(self, parents: Sequence[Parent]) -> dict[str, Any]:
        children = [parent.decoded(parent.spiral) for parent in parents]
        outcomes = await self._proposer.evaluated(parents, [None] * len(parents), children)
        return {"outcomes": [asdict(o) for o in outcomes]}

    # -- learning ----------------------------------------------------------------------------------------------------

    async def _learning(
        self, rounds: Sequence[Mapping[str, Any]], adapter: Path | None, held_out: Sequence[Mapping[str, str]]
    ) -> dict[str, Any]:
        trained = [Trained.from_json(r["trained"]) for r in rounds]
        pairs = [
            (b, a) for t in trained for b, a in zip(t.before.held_out_losses, t.after.held_out_losses, strict=True)
        ]
        fell = np.array([a - b for b, a in pairs])
        result: dict[str, Any] = {
            "trainings": len(rounds),
            "accepted": sum(r["accepted"] for r in rounds),
            "held_out_pairs": len(pairs),
            "held_out_change": float(fell.mean()) if len(fell) else None,
            "held_out_change_95": _bootstrap(fell) if len(fell) else None,
        }
        if adapter is not None and held_out:
            number = max(i for i, r in enumerate(rounds) if r["accepted"])
            used = rounds[number]["held_out_after"]
            here = trained[number].after.held_out_loss

            async def reload() -> dict[str, float]:
                return {"loss": await reloaded_loss(self._spec, adapter, used)}

            elsewhere = (await self._kept.step("reloaded", reload))["loss"]
            result |= {"loss_here": here, "loss_reloaded": elsewhere, "reload_difference": abs(here - elsewhere)}
        return result


def _example(request: RequestRecord, reply: ReplyRecord) -> dict[str, str]:
    told = {part: request.parameters[part] for part in ("system", "lead")}
    return {"id": request.request_id, **told, "prompt": request.prompt, "text": reply.text}


def _memories(parents: Sequence[Parent], outcomes: Sequence[Outcome]) -> dict[str, list[dict[str, Any]]]:
    """What the next prompts are told, as in a search: three good successes and the last failures."""
    told: dict[str, list[dict[str, Any]]] = {"successes": [], "rejected": []}
    for parent, outcome in zip(parents, outcomes, strict=True):
        if outcome.patch is None:
            continue
        before = {gene: parent.architecture[gene] for gene in outcome.patch}
        row = {"patch": dict(outcome.patch), "before": before}
        if outcome.won:
            told["successes"].append({**row, "gain": outcome.gain})
        else:
            told["rejected"].append({**row, "reason": "not better than its parent"})
    told["successes"] = sorted(told["successes"][-20:], key=lambda m: m["gain"])[-3:]
    told["rejected"] = told["rejected"][-8:]
    return told


# -- what came of it ---------------------------------------------------------------------------------------------------


def _summary(row: Mapping[str, Any]) -> dict[str, Any]:
    outcomes = [Outcome(**o) for o in row["outcomes"]]
    n, wins = len(outcomes), sum(o.won for o in outcomes)
    fresh = len({o.key for o in outcomes if o.fresh})
    gains = np.array([max(0.0, o.gain or 0.0) for o in outcomes])
    summary: dict[str, Any] = {
        "proposals": n,
        "valid": sum(o.key is not None for o in outcomes),
        "wins": wins,
        "win_rate": wins / n,
        "win_rate_95": wilson(wins, n),
        "mean_gain": float(gains.mean()),  # of fitness; a loser brings nothing, it leaves the population
        "mean_gain_95": _bootstrap(gains),
        "fresh": fresh,
        "fresh_share": fresh / n,
        "fresh_share_95": wilson(fresh, n),
        "different_patches": len({json.dumps(o.patch) for o in outcomes if o.patch}),
        "won": [o.won for o in outcomes],
    }
    for name in ("generation_s", "tokens", "valid_without_grammar", "asked_without_grammar", "replies_changed"):
        if name in row:
            summary[name] = row[name]
    return summary


def _comparisons(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs at the same parents: McNemar's exact test, and whether the intervals are apart."""
    won = {name: row.pop("won") for name, row in rows.items()}
    rivals = ("placebo", "listed", "greedy", "spiral", "before")
    pairs = [*(("after", rival) for rival in rivals), ("before", "placebo")]
    found = []
    for ours, theirs in pairs:
        only_ours = sum(a and not b for a, b in zip(won[ours], won[theirs], strict=True))
        only_theirs = sum(b and not a for a, b in zip(won[ours], won[theirs], strict=True))
        found.append(
            {
                "ours": ours,
                "theirs": theirs,
                "difference": rows[ours]["win_rate"] - rows[theirs]["win_rate"],
                "only_ours": only_ours,
                "only_theirs": only_theirs,
                "mcnemar_p": sign_flip_p(np.array(won[ours], dtype=np.int64) - np.array(won[theirs], dtype=np.int64)),
                "intervals_apart": rows[ours]["win_rate_95"][0] > rows[theirs]["win_rate_95"][1],
            }
        )
    return found


def _bootstrap(values: FloatArray) -> tuple[float, float]:
    """95 % percentile interval of the mean."""
    draws = generator(SEED, len(values), "bench.bootstrap").integers(0, len(values), (_BOOTSTRAPS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


# -- other processes ---------------------------------------------------------------------------------------------------


async def reloaded_loss(spec: ModelSpec, adapter: Path, held_out: Sequence[Mapping[str, str]]) -> float:
    """The held-out loss of the exported PEFT directory, loaded by peft itself in another process."""
    frame = {"spec": spec.to_json(), "adapter": str(adapter), "held_out": list(held_out)}
    return float((await _reference("loss", frame))["loss"])


async def plain_tokens_per_s(spec: ModelSpec, requests: Sequence[RequestRecord], lengths: Sequence[int]) -> float:
    """Tokens a second of transformers' own ``generate``, one request after the other, the same prompts and lengths."""
    prompts = [{"prompt": r.prompt, **{part: r.parameters[part] for part in ("system", "lead")}} for r in requests]
    frame = {"spec": spec.to_json(), "prompts": prompts, "lengths": list(lengths)}
    return float((await _reference("generate", frame))["tokens_per_s"])


async def _reference(operation: str, frame: Mapping[str, Any]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *child_command("riwoa.bench.reference", operation),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(int(frame["spec"]["threads"]), {"HF_HUB_OFFLINE": "1"}),
    )
    out, _ = await process.communicate(json.dumps(frame).encode())
    if process.returncode != 0:
        raise OracleError(f"the reference process for {operation} failed with exit status {process.returncode}")
    answer: dict[str, Any] = json.loads(out)
    return answer
