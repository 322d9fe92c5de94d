"""Search: spaces, codec, strategies, fitness, Pareto archive and polish. numpy only, no input or output.

Every module may be used from everywhere; none imports another room. ``strategies.STRATEGIES`` has riwoa's own by name;
a strategy is a class (``base.PopulationStrategy``) that says what it is called, which settings it has and what it uses.
"""
