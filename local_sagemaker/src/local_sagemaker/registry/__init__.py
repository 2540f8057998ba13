"""The model registry: groups of model packages, and the versions of a model in them."""
