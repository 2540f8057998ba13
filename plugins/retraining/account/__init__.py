"""What a run needs of an AWS account, and whether the account gives it."""
