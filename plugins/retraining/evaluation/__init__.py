"""Challenger and champion: which models are compared, and which goes live."""
