"""What makes a candidate, in words: one name for each operator, wherever a person reads of it.

``riwoactl status`` imports this, so it imports nothing that is slow to start.
"""

from __future__ import annotations

from riwoa.text import printable

_NAMES = {
    "init": "random draw",
    "random": "random draw",
    "spiral": "spiral move",
    "encircle": "move to the best",
    "search": "move to another",
    "recombine": "crossing",
    "mutate": "mutation",
    "climb": "guided step",
    "dream": "dream",
    "restart": "fresh draw",
    "polish": "last neighbour",
    "semantic": "language model",
    "placebo": "chance",
}
DESCRIPTIONS = {
    "init": "drawn at random",
    "random": "drawn at random",
    "spiral": "a network near the best so far, drawn on a spiral around it",
    "encircle": "a network moved part of the way to the best so far",
    "search": "a network moved part of the way to another one",
    "recombine": "a crossing of two of the best",
    "mutate": "one of the best with a few choices drawn anew",
    "climb": "one of the best, changed step by step to what a model of the results so far expects most of",
    "dream": "the most promising on a path between two distant ones of the best",
    "restart": "drawn at random in the place of one that was stuck",
    "polish": "a neighbour of the best, tried at the end",
    "semantic": "a change that the language model proposed",
    "placebo": "a change drawn by chance in the place of the language model's",
}
_MOST_CHARACTERS = 60


def operator_words(operator: str) -> str:
    """An operator by its plain name with the journal's beside it: "guided step (climb)"; another package's as it is."""
    shown = printable(operator, _MOST_CHARACTERS)
    return f"{_NAMES[operator]} ({shown})" if operator in _NAMES else shown
