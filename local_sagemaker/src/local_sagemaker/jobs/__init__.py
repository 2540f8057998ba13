"""What jobs of all kinds have in common: a container on this machine, from inputs to outputs in S3."""
