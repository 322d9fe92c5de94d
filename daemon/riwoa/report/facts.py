"""What a report knows, as frozen records; every form of it (page, Markdown, JSON) is made of these alone.

Shares are between 0 and 1, whatever the forms make of them. An accuracy is "value" here, for a run may raise another
metric; ``Aim`` says which.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from riwoa_storage.records import Json

SCHEMA = 2
Z95 = 1.959963984540054  # standard errors to either side of a 95 % interval


@dataclass(frozen=True, slots=True)
class Judged:
    """A value with its standard error, on how many pictures and in how many views of each.

    ``error`` is None where nobody knows it; ``at_most`` where it is an upper bound, since nobody knows how far the
    views of a picture agree.
    """

    value: float
    error: float | None = None
    pictures: int | None = None
    views: int = 1
    at_most: bool = False

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of an accuracy; None where no error is known."""
        if self.error is None:
            return None
        return max(0.0, self.value - Z95 * self.error), min(1.0, self.value + Z95 * self.error)


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds by the clock, with the interval for another process, and in which runtime.

    ``level`` is how often another process is expected within; None where that is not known.
    """

    ms: float
    low_ms: float
    high_ms: float
    runtime: str
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """A part of a network in the order in which it runs: its milliseconds by the table and what it is."""

    name: str
    stage: str
    ms: float
    kernel: int | None = None
    expand: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A gene that differs between two networks; None on a side where it is not active."""

    gene: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A step of the winner's descent, oldest first.

    Attributes:
        place: "generation/slot".
        operator: that made it of the one before.
        value: as the search saw it.
        gain: of fitness over its parent; None where that cannot be said.
        changes: of genes, from its parent.
        by_model: whether the language model proposed it.
    """

    place: str
    operator: str
    value: float | None
    gain: float | None
    changes: tuple[Change, ...]
    by_model: bool


@dataclass(frozen=True, slots=True)
class LineShare:
    """What an operator's steps on the winner's line brought: how many there are, and what they gained together."""

    operator: str
    steps: int
    gain: float


@dataclass(frozen=True, slots=True)
class Files:
    """An export of the winner that lies in the state directory.

    ``names`` of its files, what the network ``takes``, and its ``accuracy`` as exported, on the ``split``'s pictures.
    """

    names: tuple[str, ...] = ()
    takes: str = ""
    accuracy: float | None = None
    split: str = ""


@dataclass(frozen=True, slots=True)
class Winner:
    """The network to deploy.

    Attributes:
        name: 16 hexadecimal digits; ``riwoactl show`` takes them.
        place: "generation/slot" in the journal: its name in a report.
        operator: that proposed it.
        validation: what chose it.
        test: on pictures that chose nothing; None where there are none, and then ``untested`` may say why.
        untested: why it was not judged; "" where it was, or nobody tried.
        latency_ms: by the table; None where no latency is known.
        interval: of that, as a share; None where it is not known.
        timed: by the clock; None where it was not timed.
        within: whether it keeps every limit.
        metrics: as journaled.
        architecture: as journaled.
        layers: in order, where the table gives their milliseconds.
        from_parent: what differs from its parent.
        from_largest: what differs from the largest network of the space; None where the space is not known.
        descent: from its first ancestor to itself; of a long one the first and the last.
        ancestors: how many there are.
        first: the first ancestor's value; None where that cannot be said.
        line: what the steps of the whole descent gained, by operator, those first that gained most.
        ties: other networks within the latency target with the same value; None where nobody counted.
        files: of the export in the state directory.
        note: what people should know of the timing; "" for nothing.
    """

    name: str
    place: str
    operator: str
    validation: Judged
    test: Judged | None
    untested: str
    latency_ms: float | None
    interval: float | None
    timed: Timed | None
    within: bool
    metrics: Json
    architecture: Json
    layers: tuple[Layer, ...]
    from_parent: tuple[Change, ...]
    from_largest: tuple[Change, ...] | None
    descent: tuple[Ancestor, ...]
    ancestors: int
    first: float | None
    line: tuple[LineShare, ...]
    ties: int | None
    files: Files
    note: str


@dataclass(frozen=True, slots=True)
class DeviceWinner:
    """The best network for one of several devices.

    Attributes:
        device: its name.
        within_ms: the most that a network may take there.
        place: "generation/slot", as ``riwoactl export --arch`` takes it; "" where no network serves the device.
        value: as the search saw it; None for none.
        latency_ms: there; None for none.
        test: on pictures that chose nothing; None where it was not judged.
    """

    device: str
    within_ms: float
    place: str
    value: Judged | None
    latency_ms: float | None
    test: Judged | None


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A network that no other beats in both value and latency.

    Attributes:
        place: "generation/slot", as ``riwoactl export --arch`` takes it.
        value: as the search saw it, with its error.
        latency_ms: by the table.
        measured_ms: by the clock; None where it was not timed.
        measured_high_ms: what another process may take by the clock, at most.
        test: on pictures that chose nothing.
        less: than the winner by so much, on the same pictures; on validation where nothing was tested.
        less_error: of that.
        alike: whether it cannot be told from the winner.
        within: whether it keeps every limit.
        is_winner: whether it is the winner.
        found_after: how many evaluations.
    """

    place: str
    value: Judged
    latency_ms: float
    measured_ms: float | None
    measured_high_ms: float | None
    test: Judged | None
    less: float | None
    less_error: float | None
    alike: bool
    within: bool
    is_winner: bool
    found_after: int

    @property
    def behind(self) -> tuple[float, float] | None:
        """The 95 % interval of ``less``; None where its error is not known."""
        if self.less is None or self.less_error is None:
            return None
        return self.less - Z95 * self.less_error, self.less + Z95 * self.less_error


@dataclass(frozen=True, slots=True)
class Step:
    """The best so far from here on: after so many evaluations and working seconds."""

    evaluations: int
    seconds: float
    value: float
    within: bool
    operator: str
    place: str


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened to the run: when, of which kind (training, reload, incident, end), and what."""

    evaluations: int
    seconds: float
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """What random search would have found with as many evaluations, and how that is known.

    Attributes:
        source: in words; "" where nothing can be said.
        evaluations: of the points below.
        low: lower end of the best's 95 % interval.
        middle: median.
        high: upper end.
        front: (milliseconds, value) of the median front of random search at all the run's evaluations.
        fit: share of the values' spread that the linear model explains; None where the source is another.
    """

    source: str
    evaluations: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    front: tuple[tuple[float, float], ...] = ()
    fit: float | None = None


@dataclass(frozen=True, slots=True)
class OperatorCredit:
    """What one operator's proposals brought.

    ``win_rate`` counts children fitter than their parent, with the 95 % interval by Wilson; ``gain`` is what the wins
    gained over their parents together. What of it reached the winner is ``Winner.line``. ``share`` is of the pool that
    was chosen from at the end, where shares are learned, its like included.
    """

    operator: str
    proposals: int
    wins: int
    win_rate: float | None
    low: float
    high: float
    gain: float
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """A training of the language model's adapter: its loss, and what the gate said of it.

    ``tried_of``: nothing was trained, the adapter that was inherited of that run was tried.
    """

    generation: int
    accepted: bool
    reasons: tuple[str, ...]
    losses: tuple[float, ...]
    held_out_before: float | None
    held_out_after: float | None
    examples: int
    duration_s: float | None
    tried_of: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A text of the model: when it wrote it, with an adapter or bare, what came of it."""

    generation: int
    adapted: bool
    verdict: str
    gain: float | None
    text: str


@dataclass(frozen=True, slots=True)
class ServerUse:
    """A language model on a server: who answered, by its own word, tokens read and written, and their cost if known."""

    answered: tuple[str, ...]
    tokens_in: int
    tokens_out: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class Learning:
    """The language model's part. ``model`` is "" where there was none, ``server`` None where it was here.

    Its batches took ``writing_s`` together.
    """

    model: str
    requests: int
    successes: int
    writing_s: float
    trainings: tuple[Training, ...]
    failed: tuple[str, ...]
    samples: tuple[Sample, ...]
    server: ServerUse | None = None


@dataclass(frozen=True, slots=True)
class Visited:
    """Places in the plane of the visited networks' two largest components, thinned.

    Attributes:
        points: (x, y, value, generation).
        explained: shares of the variance that the two axes hold.
        of: how many networks were visited.
        winner: where the winner is among them; None where it cannot be said.
    """

    points: tuple[tuple[float, float, float, int], ...]
    explained: tuple[float, float]
    of: int
    winner: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class GeneShare:
    """How much of the value's spread over the whole space a gene explains, and where the winner stands in its range."""

    gene: str
    share: float
    chosen: Any
    at_end: str  # "largest", "smallest" or ""


@dataclass(frozen=True, slots=True)
class Cloud:
    """Evaluated networks, thinned: (milliseconds, value); ``of`` is how many there were."""

    points: tuple[tuple[float, float], ...]
    of: int


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """A check of the table against the device."""

    unix_s: float
    verdict: str
    ratio: float
    affects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """The latency table's health; ``device`` is "" where it is not at hand.

    ``interval`` is half its width as a share, ``level`` how often a network lies within; ``dtype`` the numbers' type.
    """

    device: str
    runtime: str
    dtype: str
    interval: float | None
    level: float | None
    networks: int
    rank_correlation: float | None
    error_percent: float | None
    load_average: float | None
    checks: tuple[DriftCheck, ...]


@dataclass(frozen=True, slots=True)
class Aim:
    """What the run looks for.

    ``whole_front`` where that is the best within every latency, not within one; ``chosen_ms`` where nobody set the
    latency target, and riwoa chose it.
    """

    metric: str
    lowered: bool
    target_ms: float | None
    limits: tuple[str, ...]
    whole_front: bool = False
    chosen_ms: bool = False

    @property
    def is_accuracy(self) -> bool:
        """Whether values are accuracies, told in percent."""
        return self.metric == "accuracy"


@dataclass(frozen=True, slots=True)
class Task:
    """What the networks are asked to do, as far as the run's oracle tells; "" and None where it does not.

    Attributes:
        data: name of the data set.
        classes: how many there are.
        judged_in: type of the numbers in which accuracies were judged.
        weights: where the networks' weights come from, in words.
        finetune_epochs: for which the winner is trained on when the run has ended.
    """

    data: str
    classes: int | None
    judged_in: str
    weights: str
    finetune_epochs: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What the run cost.

    Attributes:
        evaluations: in full.
        failures: of these.
        generations: committed ones.
        working_s: of the generations together.
        began_unix_s: when it began.
        ended_unix_s: when the last thing happened to it.
        candidates: that the search proposed.
        repeats: of these, whose answer was known.
        dropped: of these, given up on a cheaper evaluation.
        changed: of these, that were made by changing an earlier network; None where that was not counted.
        stopped_s: from the daemon's ends to its next starts, together.
    """

    evaluations: int
    failures: int
    generations: int
    working_s: float
    began_unix_s: float
    ended_unix_s: float
    candidates: int
    repeats: int
    dropped: int
    changed: int | None
    stopped_s: float


@dataclass(frozen=True, slots=True)
class NodeWork:
    """What a node of a cluster evaluated for the run in full, and the seconds that it took together."""

    node: str
    evaluations: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Since:
    """What happened after a time: evaluations, working seconds, and the best then and now."""

    unix_s: float
    evaluations: int
    working_s: float
    before: float | None
    now: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is told of a run. ``winner`` is None before anything was evaluated."""

    run_id: int
    status: str
    made_unix_s: float
    aim: Aim
    task: Task
    cost: Cost
    nodes: tuple[NodeWork, ...]  # of a cluster; none where this machine evaluated alone
    since: Since | None
    winner: Winner | None
    devices: tuple[DeviceWinner, ...]
    front: tuple[FrontPoint, ...]
    cloud: Cloud
    steps: tuple[Step, ...]
    incidents: tuple[Incident, ...]
    shadow: Shadow
    operators: tuple[OperatorCredit, ...]
    learning: Learning
    visited: Visited | None
    genes: tuple[GeneShare, ...]
    table: Table
    advice: tuple[str, ...]
    findings: tuple[str, ...]  # what the numbers say, and ask nobody to do
    provenance: Json
    commands: tuple[str, ...]
    remarks: tuple[str, ...]  # what was left out, and why

    @property
    def alike(self) -> tuple[FrontPoint, ...]:
        """Networks of the front that cannot be told from the winner."""
        return tuple(point for point in self.front if point.alike)

    @property
    def next_choice(self) -> FrontPoint | None:
        """What to deploy where the winner does not serve: the fastest that test pictures cannot tell from it."""
        w = self.winner
        if w is None or w.latency_ms is None:
            return None
        tested = [point for point in self.alike if point.within and point.test is not None]
        faster = [point for point in tested if point.latency_ms < w.latency_ms]
        return min(faster, key=lambda point: point.latency_ms, default=None)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"schema": SCHEMA, **asdict(self)}
