"""Text in, labelled and split examples out; imports no torch."""
