"""Cognition: a language model (or a script in its place) that proposes patches, and the desk where requests wait."""
