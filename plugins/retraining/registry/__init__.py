"""The model registry: a version for every run's model."""
