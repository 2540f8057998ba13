"""Names as paths: whatever is named, the path stays in its folder or is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from local_sagemaker.paths import LONGEST_COMPONENT, UnsafePathError, below

COMPONENTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "link", "out", "loop", "a", "~", "-", "C:", "\\", "..\\", "%2e%2e", "\0", "a\0"]
    ),
    st.text(max_size=8),
    st.integers(240, 270).map(lambda length: "é" * (length // 2)),
)
NAMES = st.lists(COMPONENTS, max_size=6).map("/".join)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with links: one to a folder inside, one that leads out, one to itself; a secret outside."""
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    (folder / "link").symlink_to("inside")
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (tmp_path / "secret").write_text("untouched")
    return folder


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("a/../../secret")
@example("/etc/passwd")
@example("out/secret")
@example("a//b")
@example("a\0")
@example("\ud800")
@example("x" * 250)
@example("/".join(["x" * 200] * 21))
@given(NAMES)
def test_a_path_stays_in_its_folder_or_is_refused(folder: Path, name: str) -> None:
    path = None
    with contextlib.suppress(UnsafePathError):
        path = below(folder, name)
    if path is not None:
        assert path.resolve().is_relative_to(folder.resolve())
        assert path.relative_to(folder).as_posix() == name, "two names must not share a path"
        path.exists()  # a path that the operating system takes


@pytest.mark.parametrize("name", ["a", "a/b.jpg", ".hidden", "..a", "a..", "link/b", "é" * 124, "a b\n"])
def test_plain_names_are_taken(folder: Path, name: str) -> None:
    assert below(folder, name) == folder / name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "'' .*component ''"),
        ("a/../b", "'..'"),
        ("/a", "''"),
        ("a/", "''"),
        ("a/./b", "'.'"),
        ("a\0b", "NUL"),
        ("out/secret", "symbolic link"),
        ("loop/a", "symbolic link"),
        ("x" * (LONGEST_COMPONENT + 1), "250 bytes"),
        ("é" * 125, "250 bytes"),
        ("\ud800", "not Unicode"),
        ("/".join(["x" * 200] * 21), "too long"),
    ],
)
def test_the_reason_is_named(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(UnsafePathError, match=reason):
        below(folder, name)
