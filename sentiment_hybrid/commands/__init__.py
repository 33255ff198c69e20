"""One verb per file: ``run(config, ...)`` does it and returns a small result."""
