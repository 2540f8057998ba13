"""The Airflow side of the retraining pipeline: pipeline files, requests, operators, checks, reports."""
