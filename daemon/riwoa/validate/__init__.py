"""The "max grade" protocol: search, retrain the winner from scratch, test accuracy, accuracy under corruptions."""
