"""What the rest stands on: files, locks, signals, cores, devices, Git. It knows nothing of AlexNet."""
