"""Training: the paper's update rule and schedule on Lightning, one run at a time, resumable."""
