"""The status object: every key that ``status.json``, the control socket and ``riwoactl status --json`` may hold.

This is the one place where the keys are listed. ``views`` and ``status`` build the object, ``status_check`` derives
from these classes what it lets pass, and mypy checks every reader against them.

``Required`` is what a reader may rely on once ``checked_status`` has passed an object; everything else may be missing
or None. The daemon itself writes None into required fields of an operator that has proposed nothing yet: readers leave
such rows out.
"""

# No `from __future__ import annotations` here: status_check reads the annotations of these classes as types.

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Required, TypedDict
else:
    # `riwoactl status` imports this module and must start in milliseconds; typing alone would cost it eight. At run
    # time a TypedDict is a plain dict anyway: what is left of it here are the types of its fields.
    class TypedDict:
        """Stands for ``typing.TypedDict``: ``__annotations__`` and ``__required_keys__`` describe the fields."""

        def __init_subclass__(cls, total: bool = True) -> None:
            """Tell required fields from the others."""
            given = cls.__annotations__
            cls.__required_keys__ = frozenset(name for name, kind in given.items() if isinstance(kind, Required))
            cls.__annotations__ = {n: k.kind if isinstance(k, Required) else k for n, k in given.items()}

    class Required:
        """Stands for ``typing.Required``."""

        def __init__(self, kind: type) -> None:
            self.kind = kind

        def __class_getitem__(cls, kind: type) -> "Required":
            return cls(kind)


class RunStatus(TypedDict, total=False):
    """Where the run stands."""

    run_id: Required[int]
    seed: int | None
    strategy: str | None
    phase: Required[str]  # "search" or "polish"
    generation: Required[int]  # the one under way
    generations: int | None  # of the whole search, at most
    most_evaluations: int | None  # of search and polish together; None for any number
    digest: str | None  # of everything committed so far
    target_ms: float | None
    resumed_from: int | None  # the last one committed when the daemon started: it went on with the next
    deadline_unix_s: float | None
    polish_spent: int | None  # evaluations of the polish so far
    polish_evaluations: int | None  # that it may spend
    hypervolume: float | None  # where a front is looked for: the mean of the best value within each latency
    memory: str | None  # what it knew of earlier runs as it began; None for nothing


class EvaluationsStatus(TypedDict, total=False):
    """What the evaluations have come to."""

    unique: Required[int]
    cache_hits: int | None
    failed: int | None
    dropped: int | None  # candidates given up on a lower rung
    audited: int | None  # of those that were to be dropped, how many were evaluated in full as a test
    missed: int | None  # of the audited, how many would have mattered
    per_s: Required[float]  # over the last minute
    queued: int | None


class LimitStatus(TypedDict, total=False):
    """A limit of the objective, and what a network makes of it."""

    metric: Required[str]
    bound: Required[float]
    at_least: bool | None  # whether it must be reached; else it must not be exceeded
    value: float | None  # None where it is not known
    met: bool | None
    tightest: bool | None  # missed by the greatest share of itself
    reached: tuple[float, float] | None  # least and greatest of the evaluated networks


class LeaderStatus(TypedDict, total=False):
    """The best individual so far."""

    metric: str | None  # that is optimised, "accuracy" where it is missing
    value: float | None  # of that metric; an accuracy on the pictures that choose: the best of so many tries
    accuracy: float | None  # the value, where that is one; before there were other metrics it stood alone
    accuracy_error: float | None  # standard error, where validation images were drawn
    tries: int | None
    images: int | None  # that choose, each view counted
    latency_ms: Required[float]
    latency_interval: float | None  # relative half-width of the latency table's prediction interval
    fitness: float | None
    feasible: Required[bool]
    limits: list[LimitStatus] | None  # all of them, the latency target among them
    architecture_key: str | None
    origin: tuple[int, int] | None  # generation and slot


class TargetStatus(TypedDict, total=False):
    """One of several devices, and the best network for it so far; its value is None while nothing serves it."""

    name: Required[str]
    within_ms: Required[float]  # the most that a network may take there
    metric: str | None  # that is optimised
    value: float | None  # of that metric
    latency_ms: float | None  # there
    architecture_key: str | None
    origin: tuple[int, int] | None  # generation and slot


class ImprovementStatus(TypedDict, total=False):
    """How the best individual so far was found."""

    generation: Required[int]
    found_unix_s: Required[float]
    operator: Required[str]
    metric: str | None  # that is optimised
    value: float | None  # of that metric
    former_value: float | None  # of the leader before; None for the first
    latency_ms: float | None
    former_latency_ms: float | None
    reached_target: bool | None  # which the leader before did not


class EqualStatus(TypedDict, total=False):
    """The fastest network of the front that cannot be told from the winner on the test pictures."""

    architecture_key: Required[str]
    latency_ms: Required[float]
    accuracy: Required[float]
    difference: Required[float]  # of the accuracy from the winner's, by the same pictures
    difference_error: Required[float]
    p: Required[float]


class JudgementStatus(TypedDict, total=False):
    """The winner on pictures that chose nothing, once the run is over."""

    accuracy: float | None
    accuracy_error: float | None
    pictures: int | None
    views: int | None  # of each picture
    judged: int | None  # networks of the front
    equal: int | None  # of them, those that cannot be told from the winner
    fastest_equal: EqualStatus | None
    reason: str | None  # why there is none of this


class TimedStatus(TypedDict, total=False):
    """The winner in the runtime that will run it, by the clock, once the run is over."""

    latency_ms: float | None  # None where the clock was unsteady
    low_ms: float | None
    high_ms: float | None
    spread: float | None  # of the clock, as a share up and down
    predicted_ms: float | None  # by the latency table
    runtime: str | None
    networks: int | None  # that were timed
    note: str | None  # that the search's winner gave way, or that it misses the target, or that the machine was busy


class WorkerStatus(TypedDict, total=False):
    """One worker process of the oracle."""

    name: Required[str]
    state: Required[str]
    job: str | None
    since_s: float | None  # how long the job is under way
    done: Required[int]
    restarts: int | None
    busy_share: float | None
    pid: int | None
    node: str | None  # of a cluster
    says: str | None  # why it does not work, where a cluster has no worker here


class NodeStatus(TypedDict, total=False):
    """A node of the cluster that is alive."""

    name: Required[str]
    address: str | None
    cpus: float | None
    gpus: float | None
    workers: Required[int]  # of this run
    busy: Required[int]
    refused: str | None  # why nothing is asked of it


class ClusterStatus(TypedDict, total=False):
    """The Ray cluster that evaluates, where ``oracle.pool`` is ray."""

    address: Required[str]  # as configured
    nodes: Required[list[NodeStatus]]
    queued: int | None  # evaluations that wait for a worker
    retried: int | None
    asked_twice: int | None  # evaluations that took far longer than others
    connections: int | None  # 1, and one more for each time that the cluster was lost
    lost: str | None  # why there is no connection now


class LearningStatus(TypedDict, total=False):
    """The language model's adapter and its trainings."""

    adapter: str | None  # sha256 of the one in force
    since_generation: int | None
    accepted: int | None
    rejected: int | None
    failed: int | None
    unconsumed: int | None  # lessons that no training has used yet
    lessons: str | None  # what they are: successes, evaluated children
    train_after: int | None  # so many start a training
    possible: int | None  # trainings that the whole search has room for at most
    swap: int | None  # the generation that the training under way is for
    unusable: list[str] | None
    inherited: str | None  # the adapter that the run began with, in words, with its ancestry
    trial: str | None  # how the run's first lessons judged it: waiting, accepted, rejected, failed
    left_out: list[str] | None  # why other adapters of earlier runs were not inherited, a line each


class ServerStatus(TypedDict, total=False):
    """A language model on a server, and what it costs; tokens are read (in) and written (out)."""

    url: Required[str]
    model: str | None  # that answered last, by its own word
    changed: str | None  # how that has changed in the run, in words
    constrained: bool | None  # whether the server holds its texts to legal patches
    night_in: Required[int]  # since noon
    night_out: Required[int]
    run_in: Required[int]
    run_out: Required[int]
    budget: int | None  # tokens of a night
    night_cost: float | None  # by the prices that are given
    run_cost: float | None


class PatchesStatus(TypedDict, total=False):
    """What the search made of a pool's patches; gains are differences of fitness."""

    joined: Required[int]  # different architectures
    picked: Required[int]  # of them, as they were written
    share_picked: Required[float]
    picked_won: Required[int]  # fitter than their parents
    led_to: Required[int]  # candidates that descend from patches by the search's own steps
    led_to_won: Required[int]
    greedy_share: float | None  # of the picked, those that the greedy rule would have written, too
    pairs: Required[int]  # of what came of a patch and what would have been asked without it
    gain: float | None  # mean of the pairs, None with fewer than two
    gain_low: float | None  # 95 % interval
    gain_high: float | None
    seconds_a_pick: float | None  # of writing and training, a candidate that was picked or led to
    leaders: int | None  # new leaders that came of patches


class PromptStatus(TypedDict, total=False):
    """What replies to one strategy of prompt came to."""

    joined: Required[int]
    won: Required[int]  # of them: a patch that was chosen from it beat its parent
    win_rate_low: Required[float]  # 95 % interval
    win_rate_high: Required[float]


class ProposalsStatus(TypedDict, total=False):
    """The language model and the queue of proposals in front of it."""

    model: Required[str]
    state: str | None
    reason: str | None
    breaker_left: int | None  # batches until a model that failed repeatedly is asked again
    lag: int | None
    p_semantic: float | None
    waiting: Required[int]  # batches
    trainings_waiting: int | None
    busy_share: float | None
    tokens_per_s: float | None
    restarts: int | None
    pid: int | None
    resident_bytes: float | None
    answered: Required[int]
    fallbacks: int | None
    successes: int | None
    patches: PatchesStatus | None  # of a pool
    learning: LearningStatus | None
    server: ServerStatus | None  # of a language model on one
    prompts: dict[str, PromptStatus] | None  # by strategy of prompt, in a pool


class OperatorStatus(TypedDict, total=False):
    """What one search operator is worth so far."""

    proposals: Required[int]
    valid: Required[int]
    repeats: int | None
    wins: Required[int]
    win_rate: Required[float]
    win_rate_low: Required[float]
    win_rate_high: Required[float]
    mean_gain: Required[float]
    share: float | None  # of the pool that was chosen from, its like included, where shares are learned
    seconds: float | None
    gain_per_s: float | None
    leaders: int | None  # new leaders that came from it


class ScreeningStatus(TypedDict, total=False):
    """The predictor that chooses among children."""

    examples: Required[int]
    prior: Required[int]  # examples from an earlier run's file
    interval: Required[float]  # nominal share of its prediction intervals
    covered: float | None  # share of them that held
    related: float | None  # rank correlation of what another oracle says, where that is followed


class LessonStatus(TypedDict, total=False):
    """What came of steps from parents to children that changed the same."""

    about: Required[str]
    verdict: Required[str]  # "gains", "loses" or "mixed"
    tries: Required[int]
    wins: Required[int]  # of them
    value_gain: Required[float]  # their mean
    latency_change_ms: float | None


class StrongestStatus(TypedDict, total=False):
    """A part of the space, and what more of it gains."""

    about: Required[str]
    gain: Required[float]  # of fitness


class ExperienceStatus(TypedDict, total=False):
    """What the run has learned of its own steps."""

    steps: Required[int]
    lessons: list[LessonStatus] | None  # those of the most evidence
    lessons_known: int | None
    strongest: list[StrongestStatus] | None  # parts of which more gains or loses most, beside all else


class CognitionStatus(TypedDict, total=False):
    """Who writes semantic proposals, and why."""

    state: Required[str]
    model: str | None
    reason: str | None
    learns: bool | None  # whether it can be trained


class ConfigStatus(TypedDict, total=False):
    """The configuration in force."""

    file: str | None
    revision: int | None
    error: str | None  # why the file, as it is now, was refused
    restart_keys: list[str] | None  # changed in the file, and cannot change in a run
    outcome: str | None  # what the last reading of the file came to, in a sentence; None while it asked for nothing
    waiting: str | None  # changes that apply at the next generation, in words


class GovernorStatus(TypedDict, total=False):
    """Why the search pauses, and what the machine says of itself."""

    holds: dict[str, str] | None
    readings: dict[str, float | None] | None


class SentinelStatus(TypedDict, total=False):
    """An operator or a network that the drift check timed again."""

    name: Required[str]
    kind: str | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str | None


class LatencyStatus(TypedDict, total=False):
    """The last check whether the device still runs as its latency table says."""

    verdict: Required[str]
    networks: float | None
    operators: float | None
    sentinels: list[SentinelStatus] | None
    affects: list[str] | None
    tolerance: float | None
    rounds: int | None
    passes: int | None
    load_average: float | None
    table_sha256: str | None
    checked_unix_s: float | None


class LookStatus(TypedDict, total=False):
    """What ``riwoad --continuous`` saw of the champion last, on fresh pictures."""

    folder: str | None  # of the pictures
    unix_s: Required[float]
    verdict: Required[str]  # holds, fallen or too few
    accuracy: Required[float]  # a fraction
    accuracy_error: float | None  # its standard error
    pictures: Required[int]
    acts_below: float | None  # accuracy below which it has fallen, with so many pictures


class ChampionStatus(TypedDict, total=False):
    """The export that is deployed."""

    name: Required[str]
    since_unix_s: Required[float]
    why: str | None  # in a sentence
    watched: LookStatus | None  # None: nobody looked since


class StatusObject(TypedDict, total=False):
    """The whole."""

    schema: int | None
    version: str | None
    state_directory: str | None
    pid: int | None
    started_unix_s: float | None
    updated_unix_s: float | None
    state_since_unix_s: float | None
    go_on: str | None  # the command that continues the run when the daemon has ended
    # riwoa.service.state.State; riwoactl adds "killed" for a daemon that said no goodbye, and "none" where it finds no
    # run. A reader takes any word: another version of the daemon may know more of them.
    state: Required[str]
    message: str | None
    warnings: list[str] | None  # what a person should know of the search, though it goes on
    time_left_s: float | None
    socket: str | None  # where clients are heard; None where there is no control socket, missing until that is known
    run: RunStatus | None
    evaluations: EvaluationsStatus | None
    leader: LeaderStatus | None
    targets: list[TargetStatus] | None  # where the run serves several devices
    improvement: ImprovementStatus | None
    test: JudgementStatus | None
    timed: TimedStatus | None
    pareto: int | None  # networks on the front
    workers: list[WorkerStatus] | None
    cluster: ClusterStatus | None
    proposals: ProposalsStatus | None
    operators: dict[str, OperatorStatus] | None
    screening: ScreeningStatus | None
    experience: ExperienceStatus | None
    cognition: CognitionStatus | None
    config: ConfigStatus | None
    governor: GovernorStatus | None
    latency: LatencyStatus | None
    # Added by riwoactl:
    champion: ChampionStatus | None
    source: str | None  # "daemon", "file", "journal" or "none"
    alive: bool | None  # whether a daemon holds the state directory
