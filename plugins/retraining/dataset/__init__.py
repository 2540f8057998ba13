"""The data set in S3, looked at before anything is paid for."""
