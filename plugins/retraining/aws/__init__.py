"""AWS as the pipeline uses it: clients, what responses mean, objects in S3."""
