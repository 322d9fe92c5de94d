"""The language model as its process serves it: it writes, and it is trained."""

from __future__ import annotations

from riwoa.cognition.language_model import LanguageModel
from riwoa.cognition.protocol import Trained, TrainingJob
from riwoa.cognition.training import train


class ModelWriter(LanguageModel):
    """A ``Writer`` of a real model."""

    def train(self, job: TrainingJob) -> Trained:
        """See ``Writer.train``."""
        return train(self, job)
