"""What all kinds of jobs share: a container on this machine, from its inputs to its outputs in S3."""
