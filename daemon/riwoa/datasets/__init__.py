"""Pictures and labels: the embedded digits, CIFAR-100, .npz files and folders, decoded and cached.

Other rooms get a task from ``catalogue`` and its images as ``arrays``; ``cifar`` and ``digits`` are used by name where
an experiment is about that one data set.
"""
