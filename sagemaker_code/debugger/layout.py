"""The names of files and hosts in AWS's profiler."""

import os

END_MARKER = "training_job_end.ts"
"""A file of this name marks that its folder is complete."""


def node_name() -> str:
    """This container's name among the job's hosts."""
    return os.environ.get("SM_CURRENT_HOST", "algo-1")
