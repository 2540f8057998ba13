"""Chaos: whole runs, each with one fault at a random moment, after which nothing may be lost or doubled."""
