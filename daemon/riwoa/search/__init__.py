"""Search: spaces, codec, strategies, fitness, Pareto archive and polish. numpy only, no input or output."""
