"""The operators that the DAGs declare, one a module; `jobs.py` is what those of SageMaker jobs share."""
