"""smdebug, which speaks up when it is imported, kept quiet."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """smdebug's generated protobuf code warns on import; that is not ours to mend."""
    config.addinivalue_line("filterwarnings", "ignore:tostring:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated create function:DeprecationWarning")
