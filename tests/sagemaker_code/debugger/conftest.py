"""Silences smdebug, which logs and warns on import."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """smdebug's generated protobuf code warns on import, which this project cannot fix."""
    config.addinivalue_line("filterwarnings", "ignore:tostring:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated create function:DeprecationWarning")
