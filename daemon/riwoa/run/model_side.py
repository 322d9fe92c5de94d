"""The language model's side of a run, put together for its role."""

from __future__ import annotations

from dataclasses import dataclass

from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.config.reload import Reloader
from riwoa.config.schema import Config
from riwoa.run.comparisons import Comparisons
from riwoa.run.examples import Examples
from riwoa.run.experience import Experience
from riwoa.run.greedy import GreedyRule
from riwoa.run.history import History
from riwoa.run.journal import RunJournal
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.offers import Known
from riwoa.run.outbox import Outbox
from riwoa.run.parents import UniformParents
from riwoa.run.pool_proposals import PoolProposals
from riwoa.run.pool_requests import Beliefs, PoolComposer
from riwoa.run.proposals import NoProposals, Proposals
from riwoa.run.requests import RequestComposer
from riwoa.run.semantic_slots import SemanticSlots
from riwoa.run.slot_proposals import SlotProposals
from riwoa.run.style import Style, style_of
from riwoa.run.successes import Successes
from riwoa.run.task import SearchTask
from riwoa.search.codec import Codec


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The model of a run: where its requests go, and how it writes; the configured style if none is given."""

    proposal_queue: ProposalQueue
    style: Style | None = None


def proposals_of(
    model: LanguageModel | None,
    journal: RunJournal,
    task: SearchTask,
    codec: Codec,
    *,
    history: History,
    known: Known,
    beliefs: Beliefs | None,
    reloader: Reloader,
) -> Proposals:
    """What a run's model proposes.

    Args:
        model: who writes; None where nobody does.
        journal: of the run.
        task: its space and latencies.
        codec: of the space and the run's seed.
        history: what was committed.
        known: which architectures were evaluated in committed generations.
        beliefs: what a surrogate expects; None where none is learned.
        reloader: the configuration in force.
    """
    if model is None:
        return NoProposals(codec)
    config, queue = reloader.config, model.proposal_queue
    style = model.style or style_of(config.cognition)
    composer = RequestComposer(journal.run_id, config, codec, task, style, history)
    outbox = Outbox(journal, queue, composer)

    is_slot = config.cognition.role == "slot"
    examples = Examples(Experience(journal, task.space, config.run.seed, task), task.space)
    pool = PoolComposer(composer, codec, beliefs, examples, config.cognition.patches)
    learning = _learning(journal, queue, config, style, composer, pool, task, codec)
    if is_slot:
        slots = SemanticSlots(journal, outbox, composer, codec, known, config)
        return SlotProposals(journal, slots, composer, learning, history, reloader)
    parents = UniformParents(config.run.seed)
    greedy = GreedyRule(
        task.space,
        lambda architecture: task.known_load(history.objective)(architecture),
        lambda: history.objective.limit,
    )
    return PoolProposals(journal, outbox, pool, learning, history, reloader, parents, greedy)


def _learning(
    journal: RunJournal,
    queue: ProposalQueue,
    config: Config,
    style: Style,
    composer: RequestComposer,
    pool: PoolComposer,
    task: SearchTask,
    codec: Codec,
) -> LoraSchedule:
    """What a model learns from, and when, by its role."""

    def first_target_ms() -> float | None:
        """The target that the run was begun with: probes stay the same whatever is configured since."""
        wanted_ms = journal.config_revisions()[0].config["objective"]["latency_ms"]
        if config.objective.targets:  # then nothing of it changes in a run
            wanted_ms = config.objective.wanted_ms
        return task.prompt_target_ms(task.target_ms(wanted_ms))

    share = config.cognition.held_out_share
    comparisons = Comparisons(
        journal.run_id,
        codec,
        composer.objective,
        lambda parent: pool.alone(parent, first_target_ms()),
        most_genes=composer.most_genes,
        held_out_share=share,
    )
    return LoraSchedule(
        journal,
        queue,
        config,
        style,
        Successes(journal.run_id, share) if config.cognition.role == "slot" else comparisons,
        probes=lambda: composer.probes(config.cognition.probes, first_target_ms()),
    )
