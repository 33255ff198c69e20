"""The shared encoder: where it comes from, what it computes, and how it is run fast on a CPU."""
