"""Hyperparameter tuning jobs: a real search that starts training jobs and learns from them."""
