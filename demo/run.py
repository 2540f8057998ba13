"""One demonstration from the services to the endpoint's responses: what `make demo` and `make trigger` do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from demo import services
from demo.airflow_api import AirflowApi
from demo.aws import Aws
from demo.live_view import watch
from demo.next_steps import show_next_steps
from demo.observation import Observer, View
from demo.outcome import say, show_failure, show_outcome, show_responses
from demo.pipelines import SAMPLE, Names, create, file_of, name_for, names_of
from demo.prediction import EndpointResponse, images, predict
from demo.run_report import Timings, report, write_report
from demo.sample_dataset import Plan, draw_dataset
from demo.settings import ROOT, Choice, DemoError, Settings, check_params, write_choice
from demo.upload import Synced, create_bucket_and_role, dataset_files, put_dataset, put_weights

IMAGES_SHOWN = 6
# Few trials and small images, for a machine with two cores. Drawn dogs show on smaller ones than real dogs.
SMALL_SEARCH: Mapping[str, Any] = {"max_jobs": 2, "max_parallel_jobs": 1, "epochs_max": 6}
BAKE_SECONDS = 15  # on AWS alarms need whole minutes; here their periods end now
IMAGE_SIZE = 128
SAMPLE_IMAGE_SIZE = 48


@dataclass
class Demo:
    """What the steps share. `out` is the terminal, or whatever the output goes to."""

    settings: Settings
    choice: Choice
    out: Console = field(default_factory=Console)
    timings: Timings = field(default_factory=Timings)
    names: Names = SAMPLE

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One line for a step, with its seconds, which also go into the report."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings.add(name, time.monotonic() - started)
        say(self.out, f"  {name}: {time.monotonic() - started:.1f} s")

    @property
    def dataset(self) -> Path:
        return self.choice.data or self.settings.local / "data" / "sample"


def run_params(choice: Choice) -> dict[str, Any]:
    """The DAG's parameters: what follows from data and weights, then what the user gave."""
    return {
        **SMALL_SEARCH,
        "bake_seconds": BAKE_SECONDS,
        "arch": choice.arch,
        "image_size": IMAGE_SIZE if choice.data else SAMPLE_IMAGE_SIZE,
        "trainable": "head" if choice.weights else "all",
        **choice.params,
    }


def show_sync(what: str, synced: Synced) -> str:
    removed = f", {synced.removed} of an earlier one removed" if synced.removed else ""
    return f"{what} ({synced.uploaded} put, {synced.present} there already{removed})"


def put_inputs(demo: Demo, aws: Aws) -> None:
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=demo.out,
        transient=True,
    ) as bar:
        started = time.monotonic()
        create_bucket_and_role(aws)
        task = bar.add_task("Dataset into S3", total=None)
        images = put_dataset(
            aws,
            demo.dataset,
            demo.names.dataset,
            lambda done, total: bar.update(task, completed=done, total=total),
            lambda text: say(demo.out, text),
        )
        weights = put_weights(aws, demo.choice.weights, demo.choice.arch, lambda _done, _total: None)
    elapsed = time.monotonic() - started
    demo.timings.add("inputs into S3", elapsed)
    say(demo.out, f"  {show_sync('dataset into S3', images)}: {elapsed:.1f} s")
    if demo.choice.weights:
        say(demo.out, f"  {show_sync('weights into S3', weights)}")


def start_services(demo: Demo) -> Aws:
    """Start what is not running. Airflow comes up while other things are done; `log_in` waits for it."""
    with demo.step("local SageMaker"):
        services.start(demo.settings)
        sagemaker = services.wait_until_ready(demo.settings, "sagemaker")
    return Aws(sagemaker.url, demo.settings.credentials, demo.names.bucket)


def log_in(demo: Demo) -> AirflowApi:
    with demo.step("Airflow"):
        airflow = services.wait_until_ready(demo.settings, "airflow")
        api = AirflowApi(airflow.url, "admin", services.password(demo.settings))
    show_addresses(demo.settings, demo.out)
    with demo.step("DAG"):
        api.wait_for_dag(demo.names.dag_id)
    return api


def describe_endpoint(aws: Aws, name: str) -> Mapping[str, Any] | None:
    try:
        return aws.sagemaker.describe_endpoint(EndpointName=name)
    except ClientError:
        return None


def show_addresses(settings: Settings, out: Console) -> None:
    airflow, sagemaker = services.find(settings, "airflow"), services.find(settings, "sagemaker")
    if airflow:
        say(out, f"\nAirflow:   {airflow.url}  (user admin, password {services.password(settings)})")
    if sagemaker:
        say(out, f"SageMaker: {sagemaker.url}  (boto3: endpoint_url)")


def end_earlier_runs(demo: Demo, api: AirflowApi, aws: Aws) -> None:
    """End what an interrupted call left going, so that the new run need not wait for it."""
    for run_id in api.active_runs(demo.names.dag_id):
        say(demo.out, f"  ending {run_id}, which was still going")
        api.end_run(demo.names.dag_id, run_id)
    for tuning in aws.sagemaker.list_hyper_parameter_tuning_jobs(StatusEquals="InProgress")[
        "HyperParameterTuningJobSummaries"
    ]:
        name = tuning["HyperParameterTuningJobName"]
        aws.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    for job in aws.sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]:
        with suppress(ClientError):  # a trial may have ended with its tuning job
            aws.sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])


def start_by_asset(api: AirflowApi, names: Names) -> str:
    return api.run_of_asset(names.dag_id, api.update_asset(names.asset))


def run_dag(demo: Demo, api: AirflowApi, aws: Aws, conf: Mapping[str, Any] | None) -> bool:
    """Start a run, watch it, ask the endpoint, write the record; whether all of it succeeded.

    `conf` are the DAG's parameters; None starts the run by an update of its asset, with the defaults.
    """
    since, started = datetime.now(UTC), time.monotonic()
    dag_id, name = demo.names.dag_id, demo.names.endpoint
    check_params(conf or {}, api.parameters(dag_id))
    api.unpause(dag_id)
    run_id = start_by_asset(api, demo.names) if conf is None else api.trigger(dag_id, conf)
    view = follow(demo, api, aws, run_id, since)
    demo.timings.add("run", time.monotonic() - started)
    endpoint, responses = describe_endpoint(aws, name), list[EndpointResponse]()
    succeeded = view.run.state == "success"
    try:
        if succeeded:
            with demo.step("endpoint's responses"):
                responses = [predict(aws, name, image) for image in images(demo.dataset, IMAGES_SHOWN)]
            show_responses(demo.out, name, responses)
        else:
            show_failure(demo.out, demo.settings, api, dag_id, view)
    finally:
        content = report(dag_id, view, conf or {}, endpoint, responses, demo.timings)
        content["report"] = api.result(dag_id, run_id, "report")
        write_report(demo.settings.report, content)
    show_outcome(demo.out, demo.settings, content)
    if responses:
        image = next(iter(images(demo.dataset, 1)))
        show_next_steps(demo.settings, demo.out, demo.names, aws.url, image)
    return succeeded and bool(responses)


def follow(demo: Demo, api: AirflowApi, aws: Aws, run_id: str, since: datetime) -> View:
    """Say where the run is to be seen, and show it until it has ended."""
    dag_id = demo.names.dag_id
    say(demo.out, f"\n{dag_id} {run_id}\n{api.url_of(dag_id, run_id)}")
    return watch(Observer(api, aws, dag_id, run_id, since, api.task_order(dag_id)).poll, demo.out)


def watch_run(demo: Demo) -> bool:
    """Show the run that is going on, whoever started it; whether it succeeded."""
    aws = start_services(demo)
    with log_in(demo) as api:
        run_id = active_run(demo, api)
        since = api.run(demo.names.dag_id, run_id).started or datetime.now(UTC)
        view = follow(demo, api, aws, run_id, since)
        if view.run.state != "success":
            show_failure(demo.out, demo.settings, api, demo.names.dag_id, view)
    say(demo.out, f"\n{run_id} has ended: {view.run.state}")
    return view.run.state == "success"


def stop_run(demo: Demo) -> bool:
    """Mark the run that is going on as failed, which stops its jobs, too."""
    start_services(demo)
    with log_in(demo) as api:
        run_id = active_run(demo, api)
        api.end_run(demo.names.dag_id, run_id)
    say(demo.out, f"  {run_id} is marked as failed; its jobs stop")
    return True


def active_run(demo: Demo, api: AirflowApi) -> str:
    runs = api.active_runs(demo.names.dag_id)
    if not runs:
        raise DemoError(f"No run of {demo.names.dag_id} is going on: make trigger starts one")
    return runs[0]


def prepare_dataset(demo: Demo) -> None:
    """Find the pipeline and the dataset, and check them; DemoError before anything has been started."""
    demo.names = chosen_pipeline(demo)
    if demo.choice.data is None:
        with demo.step("sample dataset"):
            draw_dataset(demo.dataset, Plan())
    dataset_files(demo.dataset)


def chosen_pipeline(demo: Demo) -> Names:
    """The pipeline of the choice; data that name none have one of their own, whose file is made."""
    choice = demo.choice
    if choice.pipeline is None and choice.data is None:
        return SAMPLE
    pipeline = choice.pipeline or name_for(choice.data or demo.dataset)
    if choice.data is not None and not file_of(pipeline).exists():
        say(demo.out, f"  the pipeline {pipeline} is new: {create(pipeline).relative_to(ROOT)} is its file")
    return names_of(pipeline)


def run_demo(demo: Demo, *, end_earlier: bool) -> bool:
    """The whole demonstration; whether the run succeeded and the endpoint responded.

    A demonstration ends a run that is still going (`end_earlier`) and runs on unchanged data, too; any other
    run waits for the one before, and is skipped if nothing changed.
    """
    prepare_dataset(demo)
    aws = start_services(demo)
    put_inputs(demo, aws)
    write_choice(demo.settings.choice, demo.choice)
    with log_in(demo) as api:
        if end_earlier:
            end_earlier_runs(demo, api, aws)
        return run_dag(demo, api, aws, {"force": end_earlier, **run_params(demo.choice)})


def run_by_asset(demo: Demo) -> bool:
    """A run started by the dataset's asset, as a producer of data would; its outcome.

    The dataset of the last `make demo` goes into S3 again, so that what changed in its folder counts.
    """
    prepare_dataset(demo)
    aws = start_services(demo)
    put_inputs(demo, aws)
    with log_in(demo) as api:
        return run_dag(demo, api, aws, None)
