"""One YAML file becomes one validated, frozen ``Config``."""
