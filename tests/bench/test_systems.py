"""Systems other than bundles, requests of every shape, and several processes."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
from click.testing import CliRunner, Result

from helpers.paths import GOLDEN
from helpers.systems import Recorder
from tlrec_edge import BundleError, DataError
from tlrec_edge.bench import BenchConfig, run_bench
from tlrec_edge.bench.endpoint import HttpSource
from tlrec_edge.bench.function import FunctionSource
from tlrec_edge.bench.lab import Lab
from tlrec_edge.bench.loads import Load, drive
from tlrec_edge.bench.requests import ItemIds, Replay, Requests
from tlrec_edge.bench.system import BundleSource, Request
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.cli import main

QUICK = BenchConfig(
    candidates=(2,), k=3, seconds=0.02, min_queries=20, warmup=0.0, pool=8, load=5, starts=1
)
FAST = ["--seconds", "0.02", "--min-queries", "5", "--candidates", "2", "--load", "3"]

OWN_SYSTEM = """
def each(request):
    return [*request.user, *(request.candidates or ())]

class many:
    @staticmethod
    def answer(requests):
        return [each(request) for request in requests]

number = 3
"""
MARKING_SYSTEM = """
import os, pathlib

def each(request):
    pathlib.Path(f"called.{os.getpid()}").touch()
    return 1
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", *words])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_system.py").write_text(OWN_SYSTEM, "utf-8")
    return tmp_path


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.received.append((self.path, body, self.client_address))
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    Server.received = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("target", ["own_system:each", "own_system:many"])
def test_a_users_own_system_runs_in_every_scenario(here: Path, target: str) -> None:
    done = run("--sut", target, "--json", *FAST)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {row["scenario"] for row in found["rows"]} == {
        "single-stream",
        "top-k",
        "multi-stream",
        "server",
        "offline",
    }
    assert (found["bundle"]["name"], found["startup"], found["bytes"]) == (target, None, None)


@pytest.mark.parametrize("target", ["nowhere:f", "own_system:g", "own_system", "own_system:number"])
def test_a_system_that_cannot_be_imported_is_an_error_in_one_line(here: Path, target: str) -> None:
    done = run("--sut", target, *FAST)
    assert done.exit_code == 1
    assert target in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_requests_hold_ids_of_the_bundle() -> None:
    recorder, ids = Recorder(), ItemIds.from_bundle(Bundle.open(GOLDEN))
    requests = Requests(ids, 8, 1.0, 0)
    lab = Lab(FunctionSource("a:b"), recorder, requests, QUICK)
    drive(lab, Load(200.0))
    assert {
        request.candidates is not None and len(request.candidates) for request in recorder.seen
    } == {5}
    known = set(ids.lookup(list(range(ids.items))))
    assert all(item in known for request in recorder.seen for item in request.user)


def test_an_infer_url_gets_the_open_inference_protocol(address: str) -> None:
    url = f"{address}/v2/models/shop/infer"
    assert run("--http", url, "--scenario", "single-stream", *FAST).exit_code == 0
    path, body, _ = Server.received[0]
    assert path == "/v2/models/shop/infer"
    history, candidates = body["inputs"]
    assert (history["name"], history["datatype"], history["shape"]) == ("history", "BYTES", [1, 50])
    assert (candidates["name"], candidates["shape"]) == ("candidates", [1, 2])
    assert len(candidates["data"]) == 2
    assert len({client for *_, client in Server.received}) == 1, "one connection, kept open"


def test_any_other_url_gets_plain_json(address: str) -> None:
    with HttpSource(f"{address}/rank?x=1").open() as system:
        system.answer([Request(["a"], ["b", "c"]), Request(["a"], None, 7)])
    assert [(path, body) for path, body, _ in Server.received] == [
        ("/rank?x=1", {"history": ["a"], "candidates": ["b", "c"]}),
        ("/rank?x=1", {"history": ["a"], "k": 7}),
    ]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://x/y", "is not an http URL"),
        ("http://[::1", "is not an http URL"),
        ("http://x:99999/", "is not an http URL"),
        ("http://127.0.0.1:9/x", "does not answer"),
    ],
)
def test_a_server_that_does_not_answer_is_an_error_in_one_line(url: str, words: str) -> None:
    done = run("--http", url, *FAST)
    assert done.exit_code == 1
    assert words in done.stderr


def test_a_server_that_refuses_ends_the_run(address: str) -> None:
    done = run("--http", f"{address}/busy", *FAST)
    assert done.exit_code == 1
    assert "answered 503" in done.stderr


def test_processes_share_the_rate_and_add_up() -> None:
    source = BundleSource(GOLDEN, 4)
    requests = Requests(ItemIds.from_bundle(Bundle.open(GOLDEN)), 8, 1.0, 0)
    config = BenchConfig(
        candidates=(2,), seconds=0.2, min_queries=1, warmup=0.0, load=5, processes=2
    )
    with source.open() as system:
        times = drive(Lab(source, system, requests, config), Load(400.0))
    assert 80 <= len(times.durations) <= 81
    broken = BundleSource(GOLDEN / "no", 4)
    with source.open() as system, pytest.raises(BundleError, match="no"):
        drive(Lab(broken, system, requests, config), Load(None))


def test_histories_of_several_lengths_are_measured() -> None:
    found = run_bench(
        GOLDEN, BenchConfig(**(vars(QUICK) | {"histories": (1, 4)})), ["single-stream"]
    )
    shapes = ["2 candidates, history 1", "2 candidates, history 4"]
    assert [row.shape for row in found.rows] == [shape for shape in shapes for _ in range(2)]


def test_a_file_is_replayed_in_order(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(
        '{"history": ["item-1"], "candidates": ["item-2", "item-3"]}\n\n'
        '{"history": [7], "candidates": [8]}\n'
    )
    requests = Replay(file, Requests(ItemIds.generated(50), 8, 1.0, 0))
    recorder = Recorder()
    lab = Lab(FunctionSource("a:b"), recorder, requests, QUICK)
    (shape,) = lab.shapes()
    assert [(r.user, r.candidates) for r in shape.requests] == [
        (["item-1"], ["item-2", "item-3"]),
        (["7"], ["8"]),
    ]
    assert (
        run_bench(GOLDEN, QUICK, ["single-stream"], replay=file).rows[0].shape
        == "2 candidates, replayed"
    )
    file.write_text('{"history": ["item-1"]}\n')
    assert run_bench(GOLDEN, QUICK, ["single-stream"], replay=file).rows[0].shape == "2 candidates"


def test_a_replay_is_read_as_tables_are(tmp_path: Path) -> None:
    """Compressed, with a byte order mark, or with a line separator of Unicode in an id."""
    file, text = tmp_path / "log.jsonl", '{"history": ["a\u2028b", "茶"]}\n{"history": ["c"]}\r\n'
    contents = [gzip.compress(text.encode()), bz2.compress(text.encode())]
    for content in [*contents, text.encode("utf-8-sig"), text.encode("utf-16")]:
        file.write_bytes(content)
        requests = Replay(file, Requests(ItemIds.generated(50), 8, 1.0, 0))
        assert requests.histories == [["a\u2028b", "茶"], ["c"]]
    file.write_bytes(contents[0][:30])
    with pytest.raises(DataError, match="damaged compressed file"):
        Replay(file, Requests(ItemIds.generated(50), 8, 1.0, 0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no request"),
        ("{}", "line 1"),
        ('{"history": ["a"]}\n[1]', "line 2"),
        ('{"history": "ab"}', "line 1"),
        ('{"history": ["a"], "candidates": ["b"]}\n{"history": ["a"]}', "some have none"),
    ],
)
def test_an_invalid_replay_is_an_error_with_file_and_line(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match=words) as caught:
        Replay(file, Requests(ItemIds.generated(50), 8, 1.0, 0))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ("--find-qps",),
        ("--p99", "5ms"),
        ("--find-qps", "--p99", "5"),
        ("--qps", "x"),
        ("--qps", "0"),
        ("--qps", "1e12"),
        ("--qps", "1e-9"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--streams", "100000"),
        ("--out", "x", "--html", "x"),
        ("--batch", "1000000"),
        ("--price-per-hour", "nan"),
        ("--price-per-hour", "0"),
        ("--cache", "cold", "--sut", "a:b"),
        ("--cache", "cold", "--driver", "loadgen"),
        ("--price-per-hour", "1", "--scenario", "server"),
        ("--load", "none"),
        ("--histories", "0"),
        ("--sut", "a:b", "--http", "http://x"),
    ],
)
def test_wrong_usage_is_exit_code_2(words: tuple[str, ...]) -> None:
    assert run(str(GOLDEN), *words).exit_code == 2
    assert run().exit_code == 2


def test_a_replay_of_empty_histories_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"history": []}\n', "utf-8")
    done = run(str(GOLDEN), "--replay", str(file), "--scenario", "top-k", *FAST)
    assert done.exit_code == 0, done.output
    assert "histories of 0 items" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--threads", "3"),
        ("--processes", "2"),
        ("--driver", "loadgen"),
        ("--driver", "loadgen", "--threads", "2"),
    ],
)
def test_ctrl_c_ends_a_run_at_once_and_in_one_line(here: Path, words: tuple[str, ...]) -> None:
    (here / "marking_system.py").write_text(MARKING_SYSTEM, "utf-8")
    command = [
        sys.executable,
        "-c",
        "from tlrec_edge.cli import main; main()",
        "bench",
        "--sut",
        "marking_system:each",
    ]
    options = [
        "--scenario",
        "server",
        "--qps",
        "20",
        "--load",
        "5",
        "--seconds",
        "100",
        "--min-queries",
        "1",
        *words,
    ]
    started = subprocess.Popen(
        [*command, *options],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    processes = 2 if "--processes" in words else 1
    while started.poll() is None and len(list(here.glob("called.*"))) < processes:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)
    _, errors = started.communicate(timeout=90)
    assert started.returncode == 130
    first, *others = errors.split("\n", 1)
    assert first.startswith("server: ")
    assert "".join(others).strip() == "interrupted; nothing was written"


def find_qps(p99: str, *options: str) -> dict[str, Any]:
    done = run(str(GOLDEN), "--find-qps", "--p99", p99, "--load", "top-k", "--json", *options)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_highest_rate_within_a_bound_is_found() -> None:
    found = find_qps("1s", "--seconds", "0.5", "--min-queries", "500")
    assert found["peak"]["qps"] > 0
    assert found["rows"] == []


def test_if_no_rate_keeps_the_bound_the_result_says_why() -> None:
    too_slow = find_qps("1us", "--seconds", "0.5", "--min-queries", "500")
    too_short = find_qps("1s", *FAST)
    assert too_slow["peak"]["qps"] is too_short["peak"]["qps"] is None
    reason = "queries are too few to show that at 99% confidence (at least 459 are needed"
    assert not any(reason in note for note in too_slow["notes"])
    (note,) = [note for note in too_short["notes"] if reason in note]
    assert "raise --seconds or --min-queries" in note


def test_every_rate_is_a_row() -> None:
    done = run(str(GOLDEN), "--scenario", "server", "--qps", "50,100.5", "--json", *FAST)
    assert [row["target_qps"] for row in json.loads(done.stdout)["rows"]] == [50, 100.5]
    assert isinstance(main, click.Group)


def test_a_failing_process_does_not_keep_the_others_waiting(here: Path) -> None:
    (here / "broken_system.py").write_text(
        "def each(request):\n    raise RuntimeError('broken')\n", "utf-8"
    )
    requests = Requests(ItemIds.generated(50), 8, 1.0, 0)
    config = BenchConfig(
        candidates=(2,), seconds=0.1, min_queries=1, warmup=0.0, load=5, processes=2
    )
    lab = Lab(FunctionSource("broken_system:each"), Recorder(), requests, config)
    with pytest.raises(
        DataError, match=r"failed on a request: RuntimeError: broken \(broken_system.py, line 2\)"
    ):
        drive(lab, Load(None))


@pytest.mark.parametrize("driver", ["native", "loadgen"])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "def each(request):\n    return request.nothing",
            "AttributeError: 'Request' object has no attribute 'nothing'",
        ),
        ("def each():\n    return 1", "takes 0 positional arguments"),
        ("def each(request):\n    request.user", "returned nothing"),
        ("async def each(request):\n    return 1", "returned a coroutine, which is not run"),
        ("def each(request):\n    yield 1", "returned a generator, which is not run"),
        (
            "class each:\n    def answer(self, requests):\n        return 1",
            "missing 1 required positional argument",
        ),
        ("import sys\ndef each(request):\n    sys.exit(3)", "SystemExit: 3"),
        ("def each(request):\n    return 1 +", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("1 / 0", "ZeroDivisionError: division by zero (wrong_system.py, line 1)"),
    ],
)
def test_a_faulty_system_is_an_error_in_one_line_with_its_place(
    here: Path, code: str, words: str, driver: str
) -> None:
    (here / "wrong_system.py").write_text(code, "utf-8")
    sys.modules.pop("wrong_system", None)
    done = run("--sut", "wrong_system:each", "--driver", driver, *FAST)
    assert done.exit_code == 1
    assert words in done.stderr
    assert done.stderr.count("Error: wrong_system:each") == 1
    assert "Traceback" not in done.stderr


def test_output_of_a_system_is_not_in_the_json(here: Path) -> None:
    code = "print('imported')\ndef each(request):\n    print('called')\n    return 1\n"
    (here / "printing_system.py").write_text(code, "utf-8")
    done = run("--sut", "printing_system:each", "--scenario", "offline", "--json", *FAST)
    assert json.loads(done.stdout)["rows"]
    assert done.stderr.count("imported") == 1
    assert "called" in done.stderr
