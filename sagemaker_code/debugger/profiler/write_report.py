"""``python -m debugger profiler_report SAMPLES --output DIR``: writes a job's profiler report.

SAMPLES is a file of sample lines or a folder (local or ``s3://``) in AWS's layout: ``system/incremental/…``
and ``framework/pevents/…``. DIR (local or ``s3://``) receives ``profiler-report.html`` and
``profiler-reports/<Rule>.json``.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from debugger.profiler.advice import advise
from debugger.profiler.html_page import render
from debugger.profiler.parameters import ProfilerParameterError
from debugger.profiler.rule_report import RuleReport
from debugger.profiler.rules import evaluate, read_evidence
from debugger.storage import is_s3, local_copy, put_folder, write_atomically

PAGE = "profiler-report.html"
RULE_FOLDER = "profiler-reports"


def write_report(
    samples: str, output: str, *, job: str = "", overrides: Mapping[str, str] | None = None
) -> dict[str, RuleReport]:
    """Evaluate the samples and write page and rule files to ``output``.

    Raises FilesMissingError or StorageError for samples that cannot be read and ProfilerParameterError for a
    bad override. Empty or damaged samples give a report that says so.
    """
    with local_copy(samples) as path:
        evidence = read_evidence(path)
    reports = evaluate(evidence, overrides)
    page = render(job, evidence, reports, advise(evidence, reports))
    if not is_s3(output):
        _write(Path(output), reports, page)
        return reports
    with tempfile.TemporaryDirectory(prefix="debugger-") as folder:
        _write(Path(folder), reports, page)
        put_folder(Path(folder), output)
    return reports


def _write(folder: Path, reports: Mapping[str, RuleReport], page: str) -> None:
    for name, report in reports.items():
        write_atomically(folder / RULE_FOLDER / f"{name}.json", json.dumps(report.document()))
    write_atomically(folder / PAGE, page)


def main(arguments: list[str] | None = None) -> int:
    """Write the report and print which rules fired."""
    parser = argparse.ArgumentParser(prog="python -m debugger profiler_report", description=__doc__)
    parser.add_argument("samples", help="file or folder of samples, local or s3://")
    parser.add_argument("--output", required=True, help="folder or s3:// prefix for the report")
    parser.add_argument("--job", default="", help="name for the page's title")
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="RULE_NAME=VALUE",
        help="as in ProfilerReport's RuleParameters, e.g. CPUBottleneck_cpu_threshold=80",
    )
    options = parser.parse_args(arguments)
    overrides = dict(one.split("=", 1) for one in options.parameter if "=" in one)
    try:
        reports = write_report(options.samples, options.output, job=options.job, overrides=overrides)
    except (OSError, ProfilerParameterError) as error:
        print(f"profiler report: {error}", file=sys.stderr)
        return 1
    for name, one in sorted(reports.items(), key=lambda pair: (-pair[1].triggered, pair[0])):
        print(f"{name}: triggered {one.triggered}, datapoints {one.datapoints}")
    print(f"report: {options.output.rstrip('/')}/{PAGE}")
    return 0
