"""Once-for-All networks: their space, weights, evaluation, training and published files.

Any room may use ``space``, ``spec``, ``geometry``, ``recipe`` and ``published``, which need no torch; what needs it
belongs into a worker or a command of its own.
"""
