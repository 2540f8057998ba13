"""What a run may cost, and what it did cost.

Money is in USD and rounded only for display. Seconds are those of one instance: two instances for a minute
are 120. Costs cover instances and their volumes; SageMaker does not charge for Debugger's built-in rules,
and S3 is not included.
"""
