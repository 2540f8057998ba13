# Everything starts here; `make help` lists the targets. Needs Python 3.11 and make, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
LOCAL_DIR ?= $(CURDIR)/.local
override LOCAL_DIR := $(abspath $(LOCAL_DIR))
AIRFLOW_PYTHON = $(LOCAL_DIR)/envs/airflow/bin/python
SAGEMAKER_PYTHON = $(LOCAL_DIR)/envs/sagemaker/bin/python
TRAINING_PYTHON = $(LOCAL_DIR)/envs/training/bin/python
UV = $(LOCAL_DIR)/tools/bin/uv
DEMO = $(AIRFLOW_PYTHON) -m demo

# More than cores: the tests wait for processes and bake times about half of the time.
WORKERS ?= 3

export LOCAL_DIR

.DEFAULT_GOAL := help
.PHONY: help demo up down trigger watch stop-run open trigger-asset status dataset weights setup setup-development wheels python \
	pipeline pipeline-schema aws-check aws-tables iam-policies mwaa test-airflow-versions test-aws-images test lint types test-training test-sagemaker test-airflow test-end-to-end drills interventions chaos fuzz rules-matrix pins audit

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: PIPELINE=name DATA=folder SPLIT=0.8,0.1,0.1 WEIGHTS=file ARCH=name PARAMS='{\"max_jobs\": 4}' KEEP=0"
	@echo "             AIRFLOW_PORT=8080 SAGEMAKER_PORT=4600 REQUIRE_SIGNATURES=1 LOCAL_DIR=.local PYTHON=python3.11"
	@echo "             GOLDEN=../shared/data/aws_golden WORKERS=3 (test processes) N=3 SEED=1 (chaos) EXAMPLES=500 (fuzz)"

demo: setup  ## retrain, tune, deploy and serve on this machine (KEEP=0 stops everything at the end)
	@$(DEMO) demo

up: setup  ## start the local SageMaker and Airflow
	@$(DEMO) up

down: setup  ## stop what `make up` or `make demo` started
	@$(DEMO) down

trigger: setup  ## start another run and watch it
	@$(DEMO) trigger

watch: setup  ## show the run that is going on
	@$(DEMO) watch

stop-run: setup  ## stop the run that is going on, and its jobs
	@$(DEMO) stop-run

open: setup  ## open Airflow in the browser, signed in
	@$(DEMO) open

trigger-asset: setup  ## say that the dataset has changed, and watch the run that this starts
	@$(DEMO) trigger-asset

status: setup  ## what is running, and where
	@$(DEMO) status

dataset: setup  ## arrange the images in DATA as a dataset (SPLIT); without DATA, download dogImages (1.1 GB, resumable)
	@$(DEMO) dataset

weights: setup  ## download torchvision's ImageNet weights for ARCH (resnet50)
	@$(DEMO) weights

wheels: python  ## download what travels with the code to SageMaker into sagemaker_code/wheels
	@$(PYTHON) -m demo.wheels

setup: wheels  ## build the environments of Airflow, the local SageMaker and the training container
	@$(PYTHON) -m demo.environments airflow sagemaker training

setup-development: wheels  ## the same with the tools for tests, lint and types
	@$(PYTHON) -m demo.environments --development airflow sagemaker training
	@$(PYTHON) -m demo.environments audit

python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed and neither python3.11 nor python3 is on the PATH." \
		"Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }

test: lint types test-training test-sagemaker test-airflow test-end-to-end  ## format, lint, types and all tests

lint: setup-development  ## check format, style and the rules of what may import what
	@$(AIRFLOW_PYTHON) -m ruff format --check .
	@$(AIRFLOW_PYTHON) -m ruff check .
	@PYTHONPATH=plugins:sagemaker_code:local_sagemaker/src $(LOCAL_DIR)/envs/airflow/bin/lint-imports --no-logo

types: setup-development  ## check the types
	@$(AIRFLOW_PYTHON) -m mypy plugins dags demo tests/plugins tests/dags tests/demo tests/end_to_end tests/airflow_versions \
		tests/fuzz/files.py
	@$(SAGEMAKER_PYTHON) -m mypy local_sagemaker/src tests/local_sagemaker tests/fuzz/service.py tests/fuzz/__main__.py
	@$(AIRFLOW_PYTHON) -m mypy --python-executable $(TRAINING_PYTHON) sagemaker_code tests/sagemaker_code tests/aws_images \
		tests/fuzz/images.py tests/fuzz/classifier_model.py

test-training: setup-development  ## the scripts, in the training container's environment
	@$(TRAINING_PYTHON) -m pytest -n $(WORKERS) --dist loadfile tests/sagemaker_code

test-sagemaker: setup-development  ## the local SageMaker, in its environment
	@$(SAGEMAKER_PYTHON) -m pytest -n $(WORKERS) --dist loadfile tests/local_sagemaker

test-airflow: setup-development  ## everything else but the whole run, in Airflow's environment
	@$(AIRFLOW_PYTHON) -m pytest -n $(WORKERS) --dist loadfile tests/dags tests/plugins tests/demo

test-end-to-end: setup-development  ## one whole run on real images, where they are available
	@$(AIRFLOW_PYTHON) -m pytest tests/end_to_end

IMAGES = image-training-2.13 image-training-2.10 image-ray-serve image-torchserve
test-aws-images: setup-development  ## the containers' code in the environments of AWS's images (20 GB at first)
	@$(PYTHON) -m demo.environments --skip-missing-python $(IMAGES)
	@$(AIRFLOW_PYTHON) -m demo.aws_images

test-airflow-versions: setup-development  ## install and import on Python 3.12 and 3.13, and as managed Airflow does
	@$(PYTHON) -m demo.environments --skip-missing-python airflow-3.12 airflow-3.13 mwaa-3.0.6 mwaa-3.2.1 mwaa-3.3.1
	@$(AIRFLOW_PYTHON) -m pytest tests/airflow_versions

drills: setup  ## what can go wrong, for real: bad data, bad models, bad deployments, under traffic
	@$(DEMO) drills

audit: python  ## known vulnerabilities of all pinned packages, but audit-exceptions.toml
	@$(PYTHON) -m demo.environments audit
	@$(PYTHON) -m demo.audit

interventions: setup  ## what a person may do to a run in the middle of its training, and what becomes of run and job
	@$(DEMO) interventions

EXAMPLES ?= 500
fuzz: setup-development  ## random input of every kind for the local SageMaker, endpoints and pipeline files (EXAMPLES, SEED)
	@$(SAGEMAKER_PYTHON) -m tests.fuzz --examples $(EXAMPLES) --seed $(SEED)

N ?= 3
SEED ?= 1
chaos: setup  ## N whole runs, each with a kill, a disturbed network or a full disk at a random moment (SEED)
	@N=$(N) SEED=$(SEED) $(DEMO) chaos

GOLDEN ?= ../shared/data/aws_golden
rules-matrix: setup  ## which Debugger rule finds which fault, on real runs; and AWS's own reports, field by field
	@PYTHONPATH=sagemaker_code $(TRAINING_PYTHON) benchmarks/rules_matrix.py
	@if [ -d "$(GOLDEN)" ]; then PYTHONPATH=sagemaker_code $(TRAINING_PYTHON) -m debugger golden "$(GOLDEN)"; \
		else echo "no reports of real AWS jobs at $(GOLDEN): name their folder in GOLDEN"; fi

pipeline: setup  ## a file for another pipeline, NAME, with the sample's values
	@PYTHONPATH=plugins $(AIRFLOW_PYTHON) -m retraining.config.files new "$(NAME)"

pipeline-schema: setup  ## write the JSON Schema of pipeline files, for editors, and docs/pipeline.md
	@PYTHONPATH=plugins $(AIRFLOW_PYTHON) -m retraining.config.files schema

PIPELINE ?= dog_breed
aws-check: setup  ## whether an AWS account has what PIPELINE needs (AWS_PROFILE, AWS_REGION, ...); changes nothing
	@PYTHONPATH=plugins $(AIRFLOW_PYTHON) -m retraining.account dags/pipelines/$(PIPELINE).yaml

iam-policies: setup-development  ## write docs/iam as JSON, from the CloudFormation template
	@$(SAGEMAKER_PYTHON) -m demo.iam_policies

mwaa: wheels  ## pack the project for managed Airflow into dist/mwaa
	@$(PYTHON) -m demo.mwaa

aws-tables: setup-development  ## write what the SageMaker SDK knows of AWS's images and rules into a table
	@$(AIRFLOW_PYTHON) -m demo.aws_tables

COMPILE = $(UV) pip compile --quiet --python-version 3.11 --no-emit-index-url --custom-compile-command 'make pins'
pins: setup  ## compile the requirement files from their .in files and local_sagemaker/pyproject.toml
	@$(COMPILE) --universal requirements.in -o requirements.txt
	@$(COMPILE) -c requirements.txt local_sagemaker/pyproject.toml -o local_sagemaker/requirements.txt
	@$(COMPILE) local_sagemaker/images/pytorch/requirements.in -o local_sagemaker/images/pytorch/requirements.txt
	@$(COMPILE) -c requirements.txt requirements-compose.in -o requirements-compose.txt
	@$(COMPILE) requirements-audit.in -o requirements-audit.txt
	@$(COMPILE) -c requirements.txt -c local_sagemaker/requirements.txt \
		-c local_sagemaker/images/pytorch/requirements.txt requirements-dev.in -o requirements-dev.txt
