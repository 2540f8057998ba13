"""What a run will ask of SageMaker, what that may cost, and what it takes over from the last run."""
