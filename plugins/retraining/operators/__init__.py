"""The operators that the DAGs declare."""
