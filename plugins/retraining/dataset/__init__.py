"""The dataset in S3, checked before the run pays for anything."""
