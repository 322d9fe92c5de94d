"""What a run learns of its space: a Gaussian process of accuracies, and the screening of candidates by it."""
