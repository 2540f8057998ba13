"""Calls of moto's server, which lets most of what it cannot parse end in some exception."""

from __future__ import annotations

import gzip
import io
import logging
import sqlite3
import zlib
from collections.abc import Callable
from wsgiref.types import WSGIApplication, WSGIEnvironment
from xml.parsers.expat import ExpatError

from local_sagemaker.wsgi import HttpResponse, call_app

logger = logging.getLogger(__name__)

_MOST_UNPACKED = 4 * 1024 * 1024  # CloudWatch and Logs take 1 MB on AWS

Refuse = Callable[[int, str, str], HttpResponse]
"""Makes the service's own form of an error from status, code and message."""


def decompress(environ: WSGIEnvironment) -> None:
    """Unpack a body sent as gzip, as boto3 sends large metrics. Raises ValueError for a damaged or large one.

    moto would take our file, which is open for both, for one to write to, and unpack without an end.
    """
    if environ.get("HTTP_CONTENT_ENCODING") != "gzip":
        return
    del environ["HTTP_CONTENT_ENCODING"]
    try:
        with gzip.open(environ["wsgi.input"], "rb") as packed:
            body = packed.read(_MOST_UNPACKED + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"The body is not a complete gzip file: {error}") from error
    if len(body) > _MOST_UNPACKED:
        raise ValueError(f"The body unpacks to more than {_MOST_UNPACKED} bytes.")
    environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})


def call_moto(moto: WSGIApplication, environ: WSGIEnvironment, refuse: Refuse) -> HttpResponse:
    """moto's response; an exception becomes a refusal. Raises OSError or sqlite3.Error."""
    try:
        return call_app(moto, environ)
    except ExpatError as error:
        return refuse(400, "MalformedXML", f"The body is not the XML that this request takes: {error}")
    except NotImplementedError as error:
        return refuse(501, "NotImplemented", f"{error} The local SageMaker does not have it either.")
    except (OSError, sqlite3.Error):  # what could not be written
        raise
    except Exception as error:
        logger.warning("%s %s", environ["REQUEST_METHOD"], environ["RAW_URI"][:500], exc_info=True)
        text = f"The request could not be understood ({error}); the local SageMaker's log says where."
        return refuse(400, "InvalidRequest", text)
