"""Once-for-All networks: their space, weights, evaluation, training and published files."""
