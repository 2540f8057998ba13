"""Whether the new model goes into service: comparison, gate, registry, approval."""
