"""Puts the support modules of these tests on the path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """smdebug's generated protobuf code warns on import; that is not ours to mend."""
    config.addinivalue_line("filterwarnings", "ignore:tostring:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated create function:DeprecationWarning")
