"""A pipeline as its file and the trigger form describe it."""
