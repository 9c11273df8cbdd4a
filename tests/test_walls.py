"""The walls: which package may import which, and where each third party is imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND_FLOOR = {
    "settings",
    "errors",
    "limits",
    "metrics",
    "logs",
    "clock",
    "signals",
    "exits",
    "packages",
    "processes",
    "timeline",
    "underway",
    "heap",
    "tls",
}
# Each package, and the packages below that it may import.
PACKAGES = {
    "core": set(),
    "web": set(),
    "kafka_io": {"core"},
    "registry": {"core"},
    "inference": {"core"},
    "http": {"core"},
    "runtime": {"core", "kafka_io", "registry", "http"},
    "pool": {"core", "http"},
    "demo": {"core", "kafka_io", "registry", "inference"},
    "bench": {"core", "kafka_io", "registry", "inference", "pool", "demo"},
    "cli": {
        "core",
        "kafka_io",
        "registry",
        "inference",
        "http",
        "runtime",
        "pool",
        "demo",
        "bench",
    },
}
# Programs, and their imports from elsewhere; no module of a worker imports a program.
PROGRAMS = {
    "worker/inference/bundled/corpus.py": ("worker.demo.posts",),
    "worker/pool/entry.py": ("worker.inference.warm", "worker.runtime.serve"),
}
THIRD_PARTIES = {
    "kafka": {"kafka_io"},
    "lz4": {"kafka_io"},
    "snappy": {"kafka_io"},
    "zstandard": {"kafka_io"},
    "aws_msk_iam_sasl_signer": {"kafka_io"},
    "botocore": {"kafka_io"},
    "gssapi": {"kafka_io"},
    "fastavro": {"registry"},
    "google": {"registry"},
    "grpc_tools": {"registry"},
    "httpx2": {"registry", "kafka_io"},
    "torch": {"inference", "bench"},
    "transformers": {"inference", "bench"},
    "huggingface_hub": {"inference"},
    "safetensors": {"inference"},
    "openvino": {"inference"},
    "peft": {"inference"},
    "emoji": {"core"},
    "opentelemetry": {"runtime"},
    "starlette": {"http"},
    "uvicorn": {"http"},
}
STANDARD = {"time": "worker/clock.py"}
CALLS = {"os.environ": "worker/settings/origins.py", "os.getenv": "worker/settings/origins.py"}

# A module's name in a string: a program started by its name.
MODULE_NAME = re.compile(r"\bworker(?:\.[a-z_]+)+")

SOURCES = sorted([*(ROOT / "worker").rglob("*.py"), *(ROOT / "schemas").rglob("*.py")])


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named_in_strings(tree: ast.AST) -> Iterator[str]:
    """Yield the modules named in strings other than docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from (name for name in MODULE_NAME.findall(node.value) if _is_module(name))


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


def violations(relative: Path, source: str) -> list[str]:
    """Return the imports and calls that are forbidden in a file of this path."""
    tree = ast.parse(source)
    root = relative.parts[0]
    package = relative.parts[1] if len(relative.parts) > 2 else relative.stem
    problems = []
    for name in [*imports(tree), *named_in_strings(tree)]:
        first, *rest = name.split(".")
        if name.startswith(PROGRAMS.get(relative.as_posix(), ())):
            continue
        if first == "worker" and not _may_import(root, package, rest[0] if rest else ""):
            problems.append(f"imports {name}")
        if first in THIRD_PARTIES and package not in THIRD_PARTIES[first]:
            problems.append(f"imports {first}, which belongs to {THIRD_PARTIES[first]}")
        if first in STANDARD and relative.as_posix() != STANDARD[first]:
            problems.append(f"imports {first}, which belongs to {STANDARD[first]}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            call = ast.unparse(node)
            if call in CALLS and relative.as_posix() != CALLS[call]:
                problems.append(f"uses {call}, which belongs to {CALLS[call]}")
    return problems


def _may_import(root: str, package: str, target: str) -> bool:
    if root == "schemas":
        return False
    if target == package or target in GROUND_FLOOR:
        return True
    if package in GROUND_FLOOR:
        return False
    return target in PACKAGES.get(package, {"cli"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_walls_hold(path: Path) -> None:
    assert not violations(path.relative_to(ROOT), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("worker/core/x.py", "from worker.kafka_io import source"),
        ("worker/core/x.py", "import time"),
        ("worker/kafka_io/x.py", "from worker.inference import loading"),
        ("worker/inference/x.py", "import worker.kafka_io"),
        ("worker/runtime/x.py", "import torch"),
        ("worker/runtime/x.py", "from worker.cli import main"),
        ("worker/runtime/x.py", "from worker.demo import posts"),
        ("worker/cli/x.py", "from kafka import KafkaConsumer"),
        ("worker/cli/x.py", "def f():\n    import torch"),
        ("worker/http/x.py", "from worker.runtime import progress"),
        ("worker/demo/x.py", "from worker.bench import rig"),
        ("worker/pool/x.py", "RUN = 'from worker.cli.run import run'"),
        ("worker/errors.py", "from worker.core import records"),
        ("worker/cli/x.py", "import os\nprint(os.environ['A'])"),
        ("schemas/x.py", "from worker import errors"),
    ],
)
def test_a_violation_is_found(place: str, source: str) -> None:
    assert violations(Path(place), source)


def test_only_programs_import_programs() -> None:
    allowed = {"train", "evaluate", "corpus", "run"}
    for path in SOURCES:
        names = set(imports(ast.parse(path.read_text(encoding="utf-8"))))
        if any(name.startswith("worker.inference.bundled.corpus") for name in names):
            assert path.stem in allowed, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_module_has_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert "TBD" not in docstring


@pytest.mark.parametrize(
    "command", [[], ["audit"], ["topics"], ["demo"], ["run"], ["bench"], ["plan"]]
)
def test_help_loads_neither_torch_nor_kafka(command: list[str]) -> None:
    script = (
        "import sys, worker.cli.main as m\n"
        f"sys.argv = ['streamlabel', *{command!r}, '--help']\n"
        "try: m.main()\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'transformers', 'kafka', 'uvicorn'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_public_classes_have_unique_names() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
