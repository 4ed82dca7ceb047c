"""Training: the run, its checks, losses, weights and planning."""
