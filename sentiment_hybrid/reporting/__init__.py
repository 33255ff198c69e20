"""Reads results and draws them; imports no torch."""
