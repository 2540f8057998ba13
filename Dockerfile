# Two images of one file: `airflow` (Airflow with the DAGs) and `sagemaker` (the local SageMaker with the training
# container's environment). Environments are built in stages of their own, so that a change of the code downloads nothing again.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 app
WORKDIR /app

FROM base AS installer
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never

FROM installer AS airflow-environment
COPY requirements.txt requirements-compose.txt ./
RUN uv venv /opt/envs/airflow \
    && uv pip install --compile-bytecode --python /opt/envs/airflow/bin/python -r requirements.txt -r requirements-compose.txt

FROM base AS wheels
COPY sagemaker_code/wheels.txt ./
RUN pip download --no-cache-dir --no-deps --require-hashes --only-binary=:all: --dest /wheels --requirement wheels.txt

FROM base AS airflow
COPY --from=airflow-environment /opt/envs/airflow /opt/envs/airflow
ENV PATH=/opt/envs/airflow/bin:$PATH AIRFLOW_HOME=/airflow
RUN mkdir /airflow /credentials && chown app:app /airflow /credentials
COPY demo demo
COPY sagemaker_code sagemaker_code
COPY --from=wheels /wheels sagemaker_code/wheels
COPY plugins plugins
COPY dags dags
USER app

FROM installer AS sagemaker-environment
COPY local_sagemaker/requirements.txt ./
RUN uv venv /opt/envs/sagemaker \
    && uv pip install --compile-bytecode --python /opt/envs/sagemaker/bin/python -r requirements.txt
COPY local_sagemaker/pyproject.toml local_sagemaker/
COPY local_sagemaker/src local_sagemaker/src
RUN uv pip install --compile-bytecode --no-deps --python /opt/envs/sagemaker/bin/python ./local_sagemaker

FROM installer AS training-environment
COPY local_sagemaker/images/pytorch/requirements.txt ./
RUN uv venv --seed /opt/envs/training \
    && uv pip install --compile-bytecode --python /opt/envs/training/bin/python -r requirements.txt

FROM base AS sagemaker
COPY --from=training-environment /opt/envs/training /opt/envs/training
COPY --from=sagemaker-environment /opt/envs/sagemaker /opt/envs/sagemaker
ENV LOCAL_SAGEMAKER_ENVIRONMENTS=/opt/envs
RUN mkdir /sagemaker /credentials && chown app:app /sagemaker /credentials
COPY local_sagemaker/images local_sagemaker/images
COPY sagemaker_code sagemaker_code
COPY --from=wheels /wheels sagemaker_code/wheels
USER app
ENTRYPOINT ["/opt/envs/sagemaker/bin/python", "-m", "local_sagemaker", "--root", "/sagemaker", "--host", "0.0.0.0", \
    "--images", "local_sagemaker/images/images.yaml"]
CMD ["--require-signatures"]
