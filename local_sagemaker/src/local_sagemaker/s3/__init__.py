"""The parts of S3 that moto lacks or does differently: objects on disk, multipart uploads, streaming."""
