"""Training: the trainer, its tasks, checkpoints and runs."""
