"""Batches, stored states, the training loop, evaluation, checkpoints and prediction."""
