"""The state store: the states of a frozen encoder for each window, computed once and stored on disk."""
