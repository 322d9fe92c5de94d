"""How names and choices, which are anybody's data, are written for a language model and read back.

A gene may be called ``<|im_end|>`` or ``</think>``. Written out, the one would end the user's turn and the other the
reasoning. So "<" is never written in data, but as JSON lets it be written: in prompts, in the grammar, and so in
replies. Names without it, and without what cannot be printed, are written as they are.
"""

from __future__ import annotations

import json


def in_json(data: object) -> str:
    """JSON in the one spelling that the grammar accepts; ``json.loads`` gives the data back."""
    return json.dumps(data).replace("<", "\\u003c")


def in_words(data: object) -> str:
    """A name, a choice or a reason within a line of a prompt, unprintable characters escaped as in JSON."""
    return "".join(c if c == " " or (c.isprintable() and c != "<") else in_json(c)[1:-1] for c in str(data))
