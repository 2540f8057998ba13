"""Drills: real runs in which something goes wrong, while a client keeps asking the endpoint."""
