"""A running server as a system under test, over HTTP/1.1 with one open connection per thread.

The URL decides the protocol. ``.../v2/models/NAME/infer`` is the Open Inference Protocol v2, with
the inputs ``history`` (BYTES, [1, L]) and ``candidates`` (BYTES, [1, n]), or ``k`` (INT64, [1])
instead of candidates. Any other URL gets plain JSON: ``{"history": [...], "candidates": [...]}``,
or ``"k"`` instead of candidates.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tlrec_edge.bench.system import Request
from tlrec_edge.errors import DataError

_TIMEOUT = 30.0


@dataclass(frozen=True)
class HttpSource:
    """A URL to POST to."""

    url: str

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    @contextmanager
    def open(self) -> Iterator[HttpSystem]:
        """Yield the system. Raises DataError if the URL is not a valid http URL."""
        system = HttpSystem(self.url)
        try:
            yield system
        finally:
            system.close()


class HttpSystem:
    """Posts each request and reads the full answer.

    Raises DataError if the URL is not a valid http URL.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise DataError(
                f"{url!r:.200} is not an http URL ({error}): write http://host:port/path"
            ) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(f"{url!r:.200} is not an http URL: write http://host:port/path")
        secure = parts.scheme == "https"
        self._connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._url, self._address = url, (parts.hostname, port)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._body = _open_inference if parts.path.rstrip("/").endswith("/infer") else _plain
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._opened:
            connection.close()

    def answer(self, requests: Sequence[Request]) -> None:
        """Post the requests one by one. Raises DataError if an answer has not status 200."""
        for request in requests:
            self._post(json.dumps(self._body(request)).encode())

    def _post(self, body: bytes) -> None:
        try:
            answer = self._send(body)
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"{self._url} does not answer ({error or type(error).__name__}): is it running?"
            ) from error
        if answer.status != 200:
            preview = content[:200].decode("utf-8", "replace")
            raise DataError(f"{self._url} answered {answer.status} {answer.reason}: {preview}")

    def _send(self, body: bytes) -> http.client.HTTPResponse:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        headers = {"Content-Type": "application/json"}
        if connection is not None:
            try:
                connection.request("POST", self._path, body, headers)
                return connection.getresponse()
            except (ConnectionError, http.client.HTTPException):
                connection.close()  # servers close idle connections: open a new one
        host, port = self._address
        self._local.connection = connection = self._connect(host, port, timeout=_TIMEOUT)
        self._opened.append(connection)
        connection.request("POST", self._path, body, headers)
        return connection.getresponse()


def _plain(request: Request) -> dict[str, Any]:
    query = {"k": request.k} if request.candidates is None else {"candidates": request.candidates}
    return {"history": request.user, **query}


def _open_inference(request: Request) -> dict[str, Any]:
    query = (
        {"name": "k", "shape": [1], "datatype": "INT64", "data": [request.k]}
        if request.candidates is None
        else _strings("candidates", request.candidates)
    )
    history: Any = request.user
    return {"inputs": [_strings("history", history), query]}


def _strings(name: str, data: list[str]) -> dict[str, Any]:
    return {"name": name, "shape": [1, len(data)], "datatype": "BYTES", "data": data}
