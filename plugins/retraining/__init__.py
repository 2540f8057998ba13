"""The Airflow side of the retraining pipeline: pipeline files, requests, operators, checks, reports.

Modules that a DAG file imports (`pipeline`, `form`, `operators`) import neither boto3 nor the SageMaker SDK.
"""
