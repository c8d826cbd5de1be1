"""A running server as a system under test, over HTTP/1.1 with one kept-open connection a thread.

Two protocols, told apart by the URL. ``.../v2/models/NAME/infer`` is the Open Inference Protocol v2: a request has the
inputs ``history`` (BYTES, [1, L]) and ``candidates`` (BYTES, [1, n]), or ``k`` (INT64, [1]) in place of the latter. Any
other URL is sent ``{"history": [...], "candidates": [...]}``, or ``"k"`` in place of the candidates, as plain JSON.
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
        return self.url

    @contextmanager
    def open(self) -> Iterator[HttpSystem]:
        """Yield the system. Raises DataError for what is no http URL."""
        system = HttpSystem(self.url)
        try:
            yield system
        finally:
            system.close()


class HttpSystem:
    """Posts each request and reads the whole answer; anything but status 200 ends the run with DataError."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise DataError(
                f"{url!r:.200} is no http URL: {error}; write http://host:port/path"
            ) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(f"{url!r:.200} is no http URL; write http://host:port/path")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._url, self._kind, self._address = url, kind, (parts.hostname, port)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._body = _open_inference if parts.path.rstrip("/").endswith("/infer") else _plain
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._opened:
            connection.close()

    def answer(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._post(json.dumps(self._body(request)).encode())

    def _post(self, body: bytes) -> None:
        try:
            answer = self._send(body)
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"{self._url} does not answer: {error or type(error).__name__}; is it running?"
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
                connection.close()  # a server may close a connection that was idle
        host, port = self._address
        self._local.connection = connection = self._kind(host, port, timeout=_TIMEOUT)
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
