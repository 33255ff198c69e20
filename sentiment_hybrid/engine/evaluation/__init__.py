"""How good predictions are: metrics, baselines, and texts that a model has seen."""
