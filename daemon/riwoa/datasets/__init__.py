"""Pictures and labels: the embedded digits, CIFAR-100, .npz files and folders, decoded and cached."""
