"""What a browser may send here on behalf of a page.

Pages of other origins may do nothing but link to an object: neither call the API, nor put objects by a form,
nor read through a name that they had resolved to this machine (DNS rebinding). Only browsers send the headers
that are checked here, so other clients notice nothing but the host.
"""

from __future__ import annotations

from local_sagemaker.access.request import AddressedRequest, RefusedError

_OTHER_SITES = {"cross-site", "same-site"}  # another port of the same host is the same site
_SHOWN = 100  # characters of a header's value in a message


def check_host(request: AddressedRequest) -> None:
    """Raise RefusedError unless the Host header names this server."""
    if not request.is_for_this_server:
        raise RefusedError(
            f"The local SageMaker does not answer to the Host {_shown(request, 'host')}: use "
            "127.0.0.1 or localhost, or start it with --allowed-host NAME."
        )


def check_origin(request: AddressedRequest) -> None:
    """Raise RefusedError for a request from a page of another origin, `null` included."""
    own = f"{request.scheme}://{request.host}"
    if any(origin.lower() != own for origin in request.all("origin")):
        raise RefusedError(
            f"A page of the Origin {_shown(request, 'origin')} sent this request, and pages of other "
            "origins may not use the local SageMaker. For objects of one bucket, allow the origin in the "
            "bucket's CORS configuration (PutBucketCors)."
        )


def check_fetch_metadata(request: AddressedRequest) -> None:
    """Raise RefusedError for what another site's page loads, unless it opens an object as a new page."""
    if not {value.lower() for value in request.all("sec-fetch-site")} & _OTHER_SITES:
        return
    navigates = (request.all("sec-fetch-mode"), request.all("sec-fetch-dest")) == (["navigate"], ["document"])
    if not (navigates and (request.is_page_of_s3 or request.is_health)):
        raise RefusedError(
            f"A page of another site sent this request (Sec-Fetch-Site {_shown(request, 'sec-fetch-site')}): "
            "from there, objects can be opened by a link, and nothing else."
        )


def _shown(request: AddressedRequest, header: str) -> str:
    return repr(", ".join(request.all(header))[:_SHOWN])
