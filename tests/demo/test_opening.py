"""The address that signs a browser in works once, and for whom it was made."""

from __future__ import annotations

import threading

import httpx

from demo.opening import open_signed_in

AIRFLOW = "http://127.0.0.1:8080/"


def test_the_address_gives_the_cookie_once_and_leads_to_airflow() -> None:
    seen: list[httpx.Response] = []
    browser: list[threading.Thread] = []

    def browse(address: str) -> None:
        def ask() -> None:
            seen.append(httpx.get(address.rpartition("/")[0] + "/guess"))
            seen.append(httpx.get(address))

        browser.append(threading.Thread(target=ask))
        browser[0].start()

    assert open_signed_in(AIRFLOW, "a.jwt.token", browse)
    browser[0].join()
    wrong, right = seen
    assert wrong.status_code == 404
    assert "set-cookie" not in wrong.headers
    assert (right.status_code, right.headers["location"]) == (302, AIRFLOW)
    assert right.headers["set-cookie"] == "_token=a.jwt.token; Path=/; HttpOnly; SameSite=Lax"
