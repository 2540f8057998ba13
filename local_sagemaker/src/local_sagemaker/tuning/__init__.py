"""Hyperparameter tuning jobs: a search that starts training jobs and learns from their results."""
