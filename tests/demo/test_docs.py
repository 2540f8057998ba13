"""What README and docs say can be followed: links lead somewhere, commands exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.environments import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(page.read_text()))
    return {word.replace(" ", "-") for word in words}


def links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"(?:`|^    )make ([a-z][a-z0-9-]*)", text, re.MULTILINE):
        assert target in TARGETS, f"make {target}"
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        places = [ROOT, ROOT / "plugins", ROOT / "sagemaker_code", ROOT / "local_sagemaker" / "src"]
        paths = [place / module.replace(".", "/") for place in places]
        assert any(path.with_suffix(".py").exists() or (path / "__main__.py").exists() for path in paths), (
            module
        )
    for file in re.findall(r"`((?:benchmarks|plugins|sagemaker_code|demo|dags|docs|tests)/[\w./-]+)`", text):
        if "birds" in file:  # the example
            continue
        assert (ROOT / file.rstrip("/")).exists(), file


def test_every_target_is_described_and_every_page_is_linked() -> None:
    described = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert TARGETS - described <= {"python"}
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in links(page)}
    assert [page for page in PAGES[1:] if page.resolve() not in linked] == []
