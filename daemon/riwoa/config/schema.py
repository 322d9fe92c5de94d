"""Configuration: TOML into frozen models; command line over environment over file over defaults.

A value's place is its dotted key, ``oracle.workers`` or ``oracle.table.accuracy``; in the environment
``RIWOA_ORACLE__WORKERS=2``, ``RIWOA_ORACLE__TABLE__ACCURACY=acc``; on the command line ``--set oracle.workers=2``.
Where a key may change while a run goes on, its field says so; every other key is refused on reload and, changed while
the daemon was stopped, at the start (``--new-run`` is the way out).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from riwoa.config.fields import (
    Bytes,
    Images,
    KindSettings,
    NotNegative,
    Percent,
    Positive,
    PositiveBytes,
    Processes,
    ResolutionsPx,
    Seconds,
    Section,
    Share,
    live,
    restart,
)
from riwoa.config.hours import checked_deadline, checked_hours, deadline_text
from riwoa.config.kinds.command import CommandSettings
from riwoa.config.kinds.predictor import PredictorSettings
from riwoa.config.kinds.supernet import SupernetSettings
from riwoa.config.kinds.table import TableSettings
from riwoa.config.server import ServerSettings
from riwoa.config.strategies import strategy_table
from riwoa.search.baselines import Whale
from riwoa.search.bayesian import BayesianSearch
from riwoa.search.fitness import METRIC_NAME, Constraint, DeviceTarget, Objective
from riwoa.search.riwoa import RotationInvariantWhale


class Choosing(Section):
    """A table one of whose keys names what does the work, each with keys of its own in ``[table.NAME]``.

    Attributes:
        chooses: that key.
        choices: the names that it takes; ``riwoa.config.extended`` adds those of other packages.
    """

    chooses: ClassVar[str]
    choices: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _is_a_choice(self) -> Choosing:
        chosen = getattr(self, self.chooses)
        if chosen not in self.choices:
            raise ValueError(f"{self.chooses} = {chosen!r} is none of {', '.join(self.choices)}")
        return self


class Run(Section):
    """How long to search, and from which seed."""

    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random draw of the run")
    generations: Positive = live(
        200, "generations of search before the polish, where it is asynchronous of search.offspring candidates each"
    )
    evaluations: Positive | None = live(
        None,
        "most unique evaluations of search and polish together, which keeps at most a quarter of them; the first "
        "generation is whole",
    )
    polish_evaluations: NotNegative = live(60, "most unique evaluations of the polish; 0 for none")
    deadline: Annotated[str, BeforeValidator(deadline_text), AfterValidator(checked_deadline)] | None = live(
        None, "local time, 07:00 or 2026-01-31T07:00, by which the best answer is polished and exported"
    )
    duration_s: Seconds | None = live(
        None, "seconds after the run begins by which the same is to be done; with a deadline, the earlier"
    )
    deadline_margin_s: Annotated[float, Field(ge=0.0, le=1e8)] = live(
        120.0, "kept before either to confirm and export the winner"
    )
    finalists: Annotated[int, Field(ge=0, le=50)] = restart(
        5,
        "networks timed in their runtime when the search is over, the winner first: one that misses the target gives "
        "way to one that does not; 0 for none",
    )
    export: bool = live(True, "write the winner's files when the run ends")
    finetune_epochs: Annotated[int, Field(ge=0, le=10_000)] = live(
        0, "epochs that the winner is trained on for when the run has ended, as `riwoactl finetune` does; 0 for none"
    )


def _is_limit(text: str) -> str:
    Constraint.parse(text)
    return text


Metric = Annotated[str, Field(pattern=f"^{METRIC_NAME}$")]
Limit = Annotated[str, AfterValidator(_is_limit)]


class OtherDevice(Section):
    """Another device that the network must be fast on, too."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,40}$")]
    table: Annotated[str, Field(min_length=1)]
    at_most_ms: Annotated[float, Field(gt=0, le=1e9)]

    @property
    def metric(self) -> str:
        """What a latency on this device is called."""
        return f"latency_ms_{self.name}"

    @property
    def limit(self) -> Constraint:
        """The limit that it sets."""
        return Constraint(self.metric, self.at_most_ms)


class Target(Section):
    """A device that the run is to find a network for."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,40}$")]
    table: Annotated[str, Field(min_length=1)] | None = None
    latency_ms: Annotated[float, Field(gt=0, le=1e9)]

    @property
    def metric(self) -> str:
        """What a latency on this device is called."""
        return "latency_ms" if self.table is None else f"latency_ms_{self.name}"

    @property
    def target(self) -> DeviceTarget:
        """As an objective takes it."""
        return DeviceTarget(self.name, Constraint(self.metric, self.latency_ms))


class ObjectiveSection(Section):
    """What to look for."""

    kind: Literal["best", "front"] = Field(
        "best",
        description="best = the best network within the limits; front = the best within every latency up to the "
        "target: `riwoactl export --within` then answers any",
    )
    latency_ms: Literal["auto", "none"] | Annotated[float, Field(gt=0, le=1e9)] = live(
        "auto",
        "latency target of one image in milliseconds; auto = the geometric mean of the attainable range (of a table: "
        "the median; of a command, and beside [[target]]: none; of a front: the whole range); none = no target",
    )
    exponent: Annotated[float, Field(ge=-100, lt=0)] = live(-1.0, "w of accuracy*(latency/target)^w beyond the target")
    maximize: Metric = Field("accuracy", description="the metric to raise, of those that the oracle gives")
    minimize: Metric | None = Field(None, description="a metric to lower, instead")
    constraints: Annotated[tuple[Limit, ...], Field(strict=False)] = Field(
        (),
        description='limits of metrics that the oracle gives or that are known beforehand: "parameters <= 2e6", '
        '"recall >= 0.9"',
    )
    devices: Annotated[tuple[OtherDevice, ...], Field(strict=False)] = Field(
        (),
        description="limits on other devices, each a table [[objective.devices]] with name, table (its latencies, a "
        "file as of this device) and at_most_ms",
    )
    targets: Annotated[tuple[Target, ...], Field(strict=False)] = Field(
        (),
        description="devices each of which is to have its best network, by one search; in a file each a table "
        "[[target]] with name, table (its latencies, a file as of this device; without one this device itself) and "
        "latency_ms",
    )

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """The limits beside the latency target."""
        return (*map(Constraint.parse, self.constraints), *(device.limit for device in self.devices))

    @property
    def optimised(self) -> tuple[str, bool]:
        """The metric, and whether it is to be made smaller."""
        return self.minimize or self.maximize, self.minimize is not None

    @property
    def tables(self) -> dict[str, str]:
        """The latency tables of other devices, by what a latency on the device is called."""
        targets = ((target.metric, target.table) for target in self.targets)
        named = {metric: table for metric, table in targets if table is not None}
        return {**{device.metric: device.table for device in self.devices}, **named}

    @property
    def wanted_ms(self) -> float | str:
        """The latency target, where "auto" beside targets of devices means that there is no further one."""
        return "none" if self.targets and self.latency_ms == "auto" else self.latency_ms

    def objective(
        self, target_ms: float | None, known: frozenset[str] = frozenset({"latency_ms"}), *, as_limit: bool = False
    ) -> Objective:
        """What a search looks for under a target, which is the first limit where there are others or ``as_limit``."""
        metric, lowered = self.optimised
        limits = self.limits
        if target_ms is not None and (limits or self.targets or as_limit):
            limits = (Constraint("latency_ms", target_ms), *limits)
        front = self.kind == "front" and target_ms is not None  # None: of a journal without a generation
        targets = tuple(target.target for target in self.targets)
        return Objective(target_ms, self.exponent, metric, lowered, limits, known, front, targets)

    def to_json(self) -> dict[str, Any]:
        """As a run's provenance names it: what is as it always was is left out."""
        changed = self.model_dump(mode="json", exclude_defaults=True)
        return {"latency_ms": self.latency_ms, "exponent": self.exponent, **changed}

    @model_validator(mode="after")
    def _is_one_objective(self) -> ObjectiveSection:
        if self.minimize is not None and self.maximize != "accuracy":
            raise ValueError("objective.maximize and objective.minimize are both given; leave one out")
        if self.kind == "front" and self.latency_ms == "none":
            raise ValueError('objective.latency_ms: a front has an end; "auto" is the whole range')
        names = [*(device.name for device in self.devices), *(target.name for target in self.targets)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            where = "[[target]]" if self.targets else "objective.devices"
            raise ValueError(f"{where}: two devices are called {', '.join(twice)}; rename one")
        if self.targets and self.kind == "front":
            raise ValueError('[[target]]: a front is of one device; leave them out, or set objective.kind = "best"')
        return self


class RiwoaSettings(strategy_table(RotationInvariantWhale)):  # type: ignore[misc]  # its keys are made, not written
    """RI-IWOA. What each switch is worth is measured in `search/riwoa.py`."""


class WhaleSettings(strategy_table(Whale)):  # type: ignore[misc]
    """Whale optimisation as published."""


class BayesianSettings(strategy_table(BayesianSearch)):  # type: ignore[misc]
    """Bayesian optimisation by a Gaussian process alone."""


OFFSPRING = 4  # candidates asked at once, where there are no more workers


class Search(Choosing):
    """Which optimiser: what all strategies have in common, and a table a strategy."""

    chooses = "strategy"
    choices = ("riwoa", "gp", "woa", "random")

    strategy: str = Field(
        "riwoa", description="the optimiser: riwoa, gp, woa, random, or the name of another package's"
    )
    population: Annotated[int, Field(ge=4, le=10_000)] = Field(
        20,
        description="members, from whom children are made; without joint choice also the candidates a generation",
    )
    offspring: Annotated[int, Field(ge=1, le=10_000)] = Field(
        OFFSPRING,
        description="candidates that riwoa and gp ask at once; unless set, as many as a new run has workers, where "
        "these are more",
    )
    asynchronous: bool = Field(
        False,
        description="ask for another candidate as soon as one has been evaluated, so that no worker waits for the "
        "slowest of a generation (riwoa, gp); one is then what has arrived, mostly one candidate",
    )
    p_semantic: Share = live(
        0.3, "share of attacks, half of all moves, handed to the language model, with cognition.role = slot"
    )
    placebo_share: Share = live(0.1, "share of semantic slots handed to the placebo, likewise")
    adapt_semantic: bool = live(False, "let p_semantic follow what the language model's proposals win")
    memory: bool = Field(
        True,
        description="begin with what earlier runs of this state directory evaluated: the same oracle's as knowledge, "
        "another's of the same space as a hint",
    )
    riwoa: RiwoaSettings = RiwoaSettings()
    gp: BayesianSettings = BayesianSettings()
    woa: WhaleSettings = WhaleSettings()

    def commits(self, generations: int) -> int:
        """So many generations of ``offspring`` candidates, as they are committed: asynchronously one by one."""
        return generations * self.offspring if self.asynchronous else generations

    @property
    def settings(self) -> Section | None:
        """The table of the strategy that is chosen; None where it has none."""
        settings = getattr(self, self.strategy, None)
        return settings if isinstance(settings, Section) else None

    @property
    def predictor(self) -> str | None:
        """The file that the chosen strategy's predictor begins with, if it uses one and was given one."""
        file = getattr(self.settings, "predictor", None)
        return file if isinstance(file, str) else None


class Oracle(Choosing):
    """Where accuracies come from: what all kinds of oracle have in common, and a table a kind."""

    chooses = "kind"
    choices = ("supernet", "table", "predictor", "command")

    kind: str = Field(
        "supernet",
        description="supernet; table: a look-up in a file; predictor: OFA's accuracy predictor; command: a program "
        "of yours; or the name of an oracle of another package",
    )
    rungs: Annotated[tuple[Images | str, ...], Field(strict=False)] = Field(
        (),
        description="candidates that can change nothing are given up on these: so many validation images, ascending; "
        "low_fidelity of a table; what a command is told as its fidelity",
    )
    rung_confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = Field(
        0.9, description="that an accuracy stays below what a rung says it can reach"
    )
    workers: Literal["auto"] | Processes = restart(
        "auto", description="worker processes; auto = cores / threads, 1 on a GPU; 4 on a cluster"
    )
    threads: Processes = Field(1, description="threads a worker")
    pool: Literal["local", "ray"] = restart(
        "local", "who runs the workers: local, this machine; ray, the cluster of [ray] (the extra `riwoa[ray]`)"
    )
    timeout_s: Seconds = live(120.0, "longest evaluation before the worker is killed")
    memory_bytes: PositiveBytes = live(4 * 2**30, "resident memory above which a worker is killed")
    supernet: SupernetSettings = SupernetSettings()
    table: TableSettings = TableSettings()
    predictor: PredictorSettings = PredictorSettings()
    command: CommandSettings = CommandSettings()

    @property
    def settings(self) -> KindSettings:
        """The table of the kind that is chosen."""
        settings = getattr(self, self.kind)
        assert isinstance(settings, KindSettings)
        return settings

    @model_validator(mode="after")
    def _rungs_of_its_kind(self) -> Oracle:
        if self.kind in self.choices:
            self.settings.check_rungs(self.rungs)
        return self


Resource = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}=[0-9]{1,6}(\.[0-9]{1,4})?$")]


class Ray(Section):
    """The Ray cluster that evaluates, where ``oracle.pool`` is ray."""

    address: str = restart(
        "auto", "its head, HOST:PORT; auto = $RAY_ADDRESS, or the cluster that this machine is part of", min_length=1
    )
    cpus: Literal["auto"] | Annotated[float, Field(gt=0, le=1024)] = restart(
        "auto", "cores that one evaluation reserves; auto = oracle.threads"
    )
    gpus: Annotated[float, Field(ge=0, le=64)] = restart(0.0, "GPUs that one evaluation reserves, or a part of one")
    resources: Annotated[tuple[Resource, ...], Field(strict=False)] = restart(
        (), 'further resources that one reserves, by the names that `ray start` gave them: "board=1"'
    )
    spread: bool = restart(True, "workers go to as many nodes as there are; false: as few nodes as hold them")
    ship: bool = restart(
        True,
        "checkpoint, data and table go to the nodes that lack them, by their hash; false: they lie there already, at "
        "the same paths",
    )
    cache: str | None = restart(None, "directory on the nodes for these files; not set: ~/.cache/riwoa/nodes")
    mixed: bool = restart(
        False, "use nodes with other library or oracle versions, too: a result then depends on who computed it"
    )
    straggler_quantile: Annotated[float, Field(ge=0, lt=1)] = restart(
        0.95,
        "an evaluation that takes half as long again as this share of those before it is asked of an idle worker, too, "
        "and the first answer counts; 0: never",
    )

    @property
    def reserved(self) -> dict[str, float]:
        """Further resources by name."""
        return {name: float(amount) for name, _, amount in (text.rpartition("=") for text in self.resources)}


class Train(Section):
    """The supernet that is trained on ``oracle.supernet.data`` where its checkpoint is "trained"."""

    minutes: Annotated[float, Field(gt=0, le=1e6)] = Field(10.0, description="how long; its first tenth sets the pace")
    epochs: Positive | None = Field(None, description="instead: how often each training picture is met")
    start: str = Field(
        "auto",
        description="where it starts: scratch; a published supernet's name, or the path of one; auto = the CIFAR-100 "
        "one of the package",
        min_length=1,
    )
    width: Literal["auto"] | Annotated[float, Field(gt=0, le=8)] = Field(
        "auto", description="width multiplier; auto = that of the start, or 0.25"
    )
    resolutions: Literal["auto"] | ResolutionsPx = Field(
        "auto", description="input sizes it is trained at; auto = by the size of the pictures"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of its weights, its batches and its subnets")
    threads: Processes = Field(1, description="threads of the processor; more help on idle cores alone")


class Latency(Section):
    """The operator table of this device, in the runtime that will run the network."""

    runtime: Literal["auto", "onnxruntime", "torch", "tensorrt", "command"] = Field(
        "auto",
        description="what runs the network: onnxruntime on the CPU; torch (eager); command: a program that is given an "
        "ONNX file; auto = that of the table that lies there, onnxruntime for a new one",
    )
    precision: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="of the deployed network: float32, or int8 in onnxruntime: the winner is then exported and judged "
        "in 8 bits too",
    )
    threads: Processes = Field(1, description="threads that the network will run with")
    graph_level: Literal["all", "extended", "basic", "disabled"] = Field(
        "all", description="how far onnxruntime rewrites a graph"
    )
    networks: Annotated[int, Field(ge=10, le=4096)] = Field(24, description="whole networks to calibrate a table on")
    repeats: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        500,
        description="timed repeats of every operator; in onnxruntime a repeat is a session of 5 to 40 runs, 12 at most",
    )
    command: str | None = Field(
        None,
        description="the program of runtime = command, with arguments; the file comes last, and its last line of "
        "output is milliseconds",
        min_length=1,
    )
    command_timeout_s: Seconds = restart(120.0, "longest call of the program")
    command_retries: Annotated[int, Field(ge=0, le=100)] = restart(2, "further calls after one that failed")
    drift_every_s: Seconds | None = live(
        21600.0, "between two checks in a run whether the table still holds; the search pauses some seconds for each"
    )

    @model_validator(mode="after")
    def _measurable(self) -> Latency:
        """What no table can be measured in is refused with what to do instead."""
        if self.runtime == "tensorrt":
            raise ValueError(
                'latency.runtime: tensorrt is measured by a program on its device: runtime = "command" with trtexec, '
                "see `riwoactl help latency`"
            )
        if self.precision == "float16":
            raise ValueError(
                "latency.precision: onnxruntime on a CPU computes few operators in float16 and casts the others, which "
                "is slower; take float32 or int8"
            )
        if self.precision == "int8" and self.runtime not in ("auto", "onnxruntime"):
            raise ValueError(
                f"latency.precision: int8 is measured in onnxruntime, not in {self.runtime}"
                + ("; the program may convert the file that it is given" if self.runtime == "command" else "")
            )
        if (self.runtime == "command") != (self.command is not None):
            raise ValueError('latency.command names the program of latency.runtime = "command": set both or neither')
        return self


class Cognition(Choosing):
    """Who writes semantic proposals, and how they learn."""

    chooses = "provider"
    choices = ("auto", "model", "http", "scripted", "none")

    provider: str = Field(
        "auto",
        description="auto: a language model where one is here and an evaluation takes at least as long as its reply, "
        "as timed in this state directory; model: in any case; http: one on a server; scripted: deterministic "
        "replies, for tests; none: geometric moves only; or the name of a provider of another package",
    )
    model: str = restart(
        "auto", "auto, smollm2, a hub id (org/name), a directory or a GGUF file; see `riwoactl model`", min_length=1
    )
    script: Literal["good", "mixed", "failing", "slow"] = Field("good", description="how the scripted provider answers")
    role: Literal["pool", "slot"] = Field(
        "pool",
        description="pool: patches join what the search chooses from, where it chooses jointly; slot: one is evaluated "
        "in the place of a share of the attacks (search.p_semantic)",
    )
    patches: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="patches a request for a pool, drawn in one batch from one prompt"
    )
    counterfactual_share: Share = Field(
        0.05,
        description="of a pool: share of the candidates that came of patches beside which the next is what would have "
        "been asked without them, to learn what the model brings",
    )
    lag: NotNegative = Field(
        4, description="generations between a request and its reply's joining; of a pool at least 1"
    )
    timeout_s: Seconds = live(120.0, "longest wait for the replies of a batch")
    memory_bytes: PositiveBytes = live(6 * 2**30, "resident memory above which the model's process is killed")
    threads: Processes = Field(1, description="threads of the model's process")
    template: Literal["auto", "compact", "full"] = Field("auto", description="prompt; auto = what suits the model")
    grammar: bool = Field(True, description="constrain the patch to legal choices that change the parent")
    thinking_tokens: Literal["auto"] | Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        "auto", description="most tokens of reasoning; auto = the model's, none where a small one writes for a pool"
    )
    temperature: Literal["auto"] | Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        "auto", description="auto = the model's"
    )
    top_p: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1.0)] = Field("auto", description="auto = the model's")
    patch_genes: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="genes that a patch, or a placebo, changes at most; auto = 4 of a pool, 1 of a slot"
    )
    success_margin: Annotated[float, Field(ge=0.0, le=1e9)] = Field(
        0.0, description="a success is fitter than its parent by more than this"
    )
    breaker_failures: Positive = Field(3, description="failed batches in a row after which the model is left alone")
    breaker_rest: Positive = Field(10, description="batches it is left alone for, before one trial")
    train: bool = Field(True, description="learn from what was evaluated while the search goes on")
    inherit: bool = Field(
        True,
        description="begin with the best adapter of earlier runs of this state directory: of the same model, on the "
        "same space; in force once the new run's first lessons have let it through",
    )
    train_after: Literal["auto"] | Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        "auto", description="new lessons that start a training; auto = 16 successes or 64 evaluated children"
    )
    train_lag: Positive = Field(24, description="generations between a training's start and its adapter's swap")
    train_beside: bool = Field(
        False,
        description="go on writing during a training, with the adapter before it; in a process of its own where "
        "memory_bytes are free, else between two batches",
    )
    train_timeout_s: Seconds = live(1800.0, "longest training")
    train_batch: Annotated[int, Field(ge=1, le=10_000)] = Field(4, description="lessons an optimiser step")
    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(2, description="passes over the lessons of a training")
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0.0, le=10.0)] = Field(
        "auto", description="auto = what suits the size of the model"
    )
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.05, description="dropout of the adapter in training"
    )
    held_out_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.25, description="share of successes, or of parents, that only judge adapters"
    )
    keep_adapters: Annotated[int, Field(ge=2, le=10_000)] = restart(
        8, "newest adapters whose weights stay in the journal; of older ones, hash and training record"
    )
    probes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        12, description="fixed requests that judge an adapter's validity and variety"
    )
    http: ServerSettings = ServerSettings()

    @model_validator(mode="after")
    def _has_a_server(self) -> Cognition:
        if self.provider == "http" and self.http.url is None:
            raise ValueError('provider = "http" needs cognition.http.url, as http://127.0.0.1:11434/v1')
        return self


class Log(Section):
    """What the daemon says while it works."""

    level: Literal["debug", "info", "warning", "error"] = live("info", "least level that is written")
    format: Literal["auto", "json", "pretty"] = restart("auto", description="auto = pretty on a terminal")


class Governor(Section):
    """When an unattended search pauses for others, and when it goes on."""

    every_s: Seconds = live(5.0, "between two looks at the machine")
    disk_pause_bytes: Bytes = live(256 * 2**20, "pause with less free on the state's disk")
    disk_resume_bytes: Bytes = live(512 * 2**20, "go on with more")
    memory_pause_bytes: Bytes = live(256 * 2**20, "pause, and end the workers, with less memory available")
    memory_resume_bytes: Bytes = live(1024 * 2**20, "go on with more")
    swap_pause_share: Share | None = live(None, "pause, and end the workers, with more of the swap in use")
    swap_resume_share: Share | None = live(None, "go on with less")
    load_pause: Seconds | None = live(None, "pause above this load a core; riwoa's own is part of it")
    load_resume: Seconds | None = live(None, "go on below")
    temperature_pause_c: Percent | None = live(90.0, "pause when the hottest sensor shows more, degrees Celsius")
    temperature_resume_c: Percent | None = live(80.0, "go on below")
    battery_pause_percent: Percent | None = live(30.0, "pause, and end the workers, with less, on battery")
    battery_resume_percent: Percent | None = live(50.0, "go on with more, or on mains")
    quiet_hours: Annotated[tuple[Annotated[str, AfterValidator(checked_hours)], ...], Field(strict=False)] = live(
        (), "spans of the day, local time, in which nothing runs: 08:00-18:00"
    )
    retry_s: Seconds = live(30.0, "before an oracle that fails altogether is tried again; doubles up to 32 times this")

    @model_validator(mode="after")
    def _calmer(self) -> Governor:
        """Each level to go on at lies on the calm side of the one to pause at, and both are set or neither."""
        for name, higher_is_calm in _LEVELS.items():
            pause_key = next(k for k in type(self).model_fields if k.startswith(f"{name}_pause"))
            pause, resume = getattr(self, pause_key), getattr(self, pause_key.replace("_pause", "_resume"))
            if (pause is None) != (resume is None):
                raise ValueError(f"governor.{name}: set the level to pause at and the one to resume at, or neither")
            if pause is not None and (resume < pause if higher_is_calm else resume > pause):
                raise ValueError(f"governor.{name}: it would resume at {resume:g} only to pause again at {pause:g}")
        return self


_LEVELS = {"disk": True, "memory": True, "swap": False, "load": False, "temperature": False, "battery": True}


class Control(Section):
    """Who may talk to the daemon beside root and its own user."""

    group: str = restart("riwoa", "members may ask for the status; where it does not exist, nobody else may connect")
    operators: Annotated[tuple[str, ...], Field(strict=False)] = live(
        (), "users of the group who may also pause, resume, stop and reload"
    )


AlertKind = Literal["finished", "unhealthy", "held", "stalled", "drift", "leader"]


class Alerts(Section):
    """Whom to tell, and of what; the journal knows what was told."""

    command: str | None = live(None, "a command that gets the text on its standard input; no shell", min_length=1)
    webhook_file: str | None = live(
        None,
        "a file whose first line is an http(s) address to which JSON is posted: Slack's, Mattermost's, Discord's, your "
        "own; in a file, for it is a secret and settings are journaled",
        min_length=1,
    )
    on: Annotated[tuple[AlertKind, ...], Field(strict=False)] = live(
        ("finished", "unhealthy", "held", "stalled", "drift"),
        "of what: held: it pauses for disk, memory, heat, ...; stalled; drift of the latency table; leader: a better "
        "network",
    )
    stalled_evaluations: Annotated[int, Field(ge=1)] = live(
        300, "evaluations without a better network that are a stall"
    )


class Web(Section):
    """The page that the daemon serves, in a process beside it; it needs the extra `riwoa[web]`."""

    listen: str | None = live(
        None, "127.0.0.1:8321, or the path of a Unix socket (with a slash); not set: no page", min_length=1
    )
    require_token: bool = live(False, "reading needs a token on this machine, too")


class Config(Section):
    """The whole configuration."""

    run: Run = Run()
    objective: ObjectiveSection = ObjectiveSection()
    search: Search = Search()
    oracle: Oracle = Oracle()
    ray: Ray = Ray()
    train: Train = Train()
    latency: Latency = Latency()
    cognition: Cognition = Cognition()
    governor: Governor = Governor()
    control: Control = Control()
    alerts: Alerts = Alerts()
    web: Web = Web()
    log: Log = Log()

    @property
    def polish_evaluations(self) -> int:
        """Of the polish in force: a front has no one network to polish."""
        return 0 if self.objective.kind == "front" else self.run.polish_evaluations


def leaves(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a configuration and its pydantic field; a table's own keys before those of its sub-tables."""
    inner = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            inner.append((name, info.annotation))
        else:
            yield prefix + name, info
    for name, table in inner:
        yield from leaves(table, f"{prefix}{name}.")


def may_change(config: Config, key: str, info: Any) -> bool:
    """Whether a key may change in a run of a configuration."""
    # What was evaluated is judged anew by another target, but not by another share of all limits.
    fixed = config.objective.limits or config.objective.targets or config.oracle.settings.answers_latency
    return is_live(info) and not (key == "objective.latency_ms" and fixed)


def is_live(info: Any) -> bool:
    """Whether a field may change while a run goes on."""
    return bool((info.json_schema_extra or {}).get("live"))


def may_restart(key: str, model: type[Config] = Config) -> bool:
    """Whether a key may change between two lives of one run."""
    return bool((dict(leaves(model))[key].json_schema_extra or {}).get("restart"))


def value_of(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def as_json(config: Config) -> dict[str, Any]:
    """The configuration as a JSON object, as journaled."""
    return config.model_dump(mode="json")
