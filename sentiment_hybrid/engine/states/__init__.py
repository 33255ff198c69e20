"""The state store: what a frozen encoder gives for each window, computed once and kept on disk."""
