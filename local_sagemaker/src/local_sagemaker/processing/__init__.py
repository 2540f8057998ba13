"""Processing jobs: a container with its inputs and outputs in S3, as CreateProcessingJob starts it."""
