"""Threads that others wait for: an exception in one of their steps must not end them in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


def attempt(step: Callable[[], object], what: str) -> bool:
    """Whether the step ended without an exception. One is logged, and the caller tries again later."""
    try:
        step()
    except Exception:
        logger.exception("%s failed and is tried again", what)
        return False
    return True
