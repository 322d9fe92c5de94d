"""The language model that proposes patches, or a script in its place, and the proposal queue where requests wait."""
