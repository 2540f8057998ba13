"""What a task reads and writes, for OpenLineage; nothing happens where its provider is not installed.

Objects and folders in S3 are named as OpenLineage's naming rules say
(https://openlineage.io/docs/spec/naming): namespace `s3://<bucket>`, name `<key>`. For SageMaker there is no
rule; names follow the one for AWS Glue: namespace `arn:aws:sagemaker:<region>:<account>`, name
`<type>/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk import get_current_context
from airflow.sdk.bases.operator import BaseOperator

from retraining.aws.s3 import split_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage


class Traced(BaseOperator):
    """An operator that tells OpenLineage what it has read and written, as s3:// URIs and ARNs."""

    reads: Iterable[str | None] = ()
    writes: Iterable[str | None] = ()

    def trace(self, reads: Iterable[str | None], writes: Iterable[str | None]) -> None:
        """Remember what the task has read and written; None is left out."""
        self.reads, self.writes = reads, writes

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Called by the OpenLineage provider after `execute`."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage(inputs=_datasets(self.reads), outputs=_datasets(self.writes))


class TracedPythonOperator(Traced, _PythonDecoratedOperator):
    """Airflow's `@task`; OpenLineage has an extractor of its own for that class, which knows no datasets."""

    custom_operator_name = "@task"


def trace(reads: Iterable[str | None], writes: Iterable[str | None] = ()) -> None:
    """`Traced.trace` of the task that is running."""
    cast("Traced", get_current_context()["task"]).trace(reads, writes)


def _datasets(names: Iterable[str | None]) -> list[Dataset]:
    return [_dataset(name) for name in dict.fromkeys(names) if name]


def _dataset(name: str) -> Dataset:
    from airflow.providers.common.compat.openlineage.facet import Dataset

    if name.startswith("arn:"):
        *namespace, resource = name.split(":", 5)
        return Dataset(namespace=":".join(namespace), name=resource)
    bucket, key = split_uri(name)
    return Dataset(namespace=f"s3://{bucket}", name=key or "/")
