"""The report command: files in AWS's layout and a page that needs nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from debugger.profiler import write_report

from tests.sagemaker_code.debugger.samples_support import golden_folder, tick, write_lines


class Page(HTMLParser):
    """Checks nesting and collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [
            value or ""
            for name, value in attrs
            if name in ("src", "data") or (name == "href" and value and not value.startswith("#"))
        ]


def test_a_gpu_job_gets_files_and_a_self_contained_page(tmp_path: Path) -> None:
    samples = golden_folder() / "jobs" / "g4dn.xlarge"
    assert write_report.main([str(samples), "--output", str(tmp_path), "--job", "dog <breed>"]) == 0
    files = sorted(path.stem for path in (tmp_path / "profiler-reports").glob("*.json"))
    assert len(files) == 11
    for path in (tmp_path / "profiler-reports").glob("*.json"):
        assert set(json.loads(path.read_text())) == {
            "RuleTriggered",
            "Violations",
            "Details",
            "Datapoints",
            "RuleParameters",
        }
    text = (tmp_path / "profiler-report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.loads == []
    assert "script" not in page.tags
    assert "polyline" in page.tags
    assert not re.search(r"@import|url\(", text)
    assert "dog &lt;breed&gt;" in text
    assert text.index("GPUMemoryIncrease") < text.index("LowGPUUtilization") < text.index("CPUBottleneck</b>")


def test_the_rhythm_of_a_job_of_three_seconds_is_enough(tmp_path: Path) -> None:
    samples = write_lines(tmp_path / "m.jsonl", [one for n in range(6) for one in tick(n, cpus=[10, 20])])
    assert write_report.main([str(samples), "--output", str(tmp_path / "out")]) == 0
    assert "the GPU rules had insufficient data" in (tmp_path / "out" / "profiler-report.html").read_text()


def test_missing_samples_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "nowhere")
    assert write_report.main([missing, "--output", str(tmp_path / "out")]) == 1
    assert missing in capsys.readouterr().err


def test_a_bad_parameter_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = write_lines(tmp_path / "m.jsonl", tick(0, cpus=[10]))
    arguments = [str(samples), "--output", str(tmp_path / "out"), "--parameter", "BatchSize_wndow=3"]
    assert write_report.main(arguments) == 1
    assert "wndow" in capsys.readouterr().err
