"""Turns Protobuf schemas, `.proto` texts or base64 descriptors, into descriptors.

protoc compiles the texts, in a process of its own: a schema can't crash or stop the worker, or
write to its standard error.

Owns: protoc's limits; the well-known files.
Thread: registry.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import base64
import errno
import importlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import google
import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from worker.core.visible import excerpt
from worker.errors import RecordRejected
from worker.registry.rejections import unusable
from worker.registry.schema import RegisteredSchema

_ROOT: Final = "streamlabel/root.proto"  # a schema has no file name of its own
_SECONDS: Final = 120  # by the clock, on a machine that has other work
_PROTOC: Final = """
import contextlib, resource, sys
MB = 1 << 20
limits = {"CPU": 20, "AS": 2048 * MB, "FSIZE": 64 * MB, "CORE": 0}
for name, limit in limits.items():
    with contextlib.suppress(ValueError, OSError):  # not every system has each
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit + (name == "CPU")))
from grpc_tools import _protoc_compiler
sys.exit(_protoc_compiler.run_main(["protoc".encode(), *map(str.encode, sys.argv[1:])]))
"""
_ROOM: Final = 1 << 20  # bytes that a folder has to take if protoc did not fail for want of them
_ERRORS: Final = 65_536  # characters of protoc's output that are read
_ABOUT_NAMES: Final = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_PROBLEM: Final = re.compile(r"\S+:\d+:\d+: (?!warning)")
_GOOGLE: Final = re.compile(r"google/(protobuf|type)/[a-z_]+\.proto")
_PROTOS: Final = Path(grpc_tools.__path__[0]) / "_proto"

# Confluent's serializers know these files, and register no references to them
# (https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/serdes-protobuf.html).
_META: Final = """
  extend google.protobuf.{0} {{ optional Meta {1}_meta = 1088; }}"""
_EXTENDED: Final = {
    "FileOptions": "file",
    "MessageOptions": "message",
    "FieldOptions": "field",
    "EnumOptions": "enum",
    "EnumValueOptions": "enum_value",
}
_CONFLUENT: Final = {
    "confluent/meta.proto": """
  syntax = "proto3"; package confluent; import "google/protobuf/descriptor.proto";
  message Meta {
    string doc = 1; map<string, string> params = 2; repeated string tags = 3; repeated Rule rules = 4;
  }
  message Rule { string name = 1; string doc = 2; string expr = 3; string sql = 4; }"""
    + "".join(_META.format(*extended) for extended in _EXTENDED.items()),
    "confluent/type/decimal.proto": """
  syntax = "proto3"; package confluent.type;
  message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }""",
    "confluent/type/variant.proto": """
  syntax = "proto3"; package confluent.type;
  message Variant { bytes metadata = 1; bytes value = 2; }""",
    "confluent/types/decimal.proto": """
  syntax = "proto3"; import public "confluent/type/decimal.proto";""",
}


def file_descriptor(schema: RegisteredSchema) -> Any:
    """Return the descriptor of a schema's file, in a pool of its own.

    Raises:
        RecordRejected: the schema is not valid, or a reference is missing (`unusable_schema`).
        OSError: this machine can't run protoc now, or not to its end.
    """
    described: dict[str, FileDescriptorProto] = {}
    texts: dict[str, str] = {}
    for name, text in {**schema.resolved, _ROOT: schema.text}.items():
        if content := _base64(text):
            described.update({file.name: file for file in _decoded(content, name)})
        else:
            texts[name] = text
    needed = {name for file in described.values() for name in file.dependency}
    confluent = {name: text for name, text in _CONFLUENT.items() if name in needed}
    files = [file for name in sorted(needed - set(described)) for file in _google(name)]
    files += _compiled({**confluent, **texts}, described.values())
    files += described.values()
    pool = DescriptorPool()
    try:
        for content in {file.name: file.SerializeToString() for file in files}.values():
            pool.AddSerializedFile(content)
        return pool.FindFileByName(_ROOT)
    except (TypeError, KeyError) as error:
        raise unusable(f"Protobuf: {excerpt(str(error), 300)}") from None


def _base64(text: str) -> bytes | None:
    """Return the decoded text, or None: a `.proto` text never is base64."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None


def _decoded(content: bytes, name: str) -> list[FileDescriptorProto]:
    """Return the files of a descriptor, or of a set of them; the last one gets the name."""
    try:
        files = [FileDescriptorProto.FromString(content)]
        if not files[0].message_type and not files[0].dependency:
            files = list(FileDescriptorSet.FromString(content).file) or files
    except DecodeError:
        raise unusable("Protobuf: base64, but no file descriptor") from None
    files[-1].name = name
    return files


def _google(name: str) -> Iterator[FileDescriptorProto]:
    """Yield a well-known file and those that it imports; nothing for other names."""
    if not _GOOGLE.fullmatch(name):
        return
    try:
        module = importlib.import_module(f"{name.removesuffix('.proto').replace('/', '.')}_pb2")
    except ImportError:
        return
    yield from _with_imports(module.DESCRIPTOR)


def _with_imports(file: Any) -> Iterator[FileDescriptorProto]:
    for imported in file.dependencies:
        yield from _with_imports(imported)
    described = FileDescriptorProto()
    file.CopyToProto(described)
    yield described


def _compiled(
    texts: Mapping[str, str], described: Iterable[FileDescriptorProto]
) -> list[FileDescriptorProto]:
    """Return the files of the texts and all that they import, each after its imports."""
    if not texts:
        return []
    with tempfile.TemporaryDirectory(prefix="streamlabel-protoc-") as folder:
        root = Path(folder)
        for name, text in {**_CONFLUENT, **texts}.items():
            _write(root / "in", name, text)
        (root / "set").write_bytes(FileDescriptorSet(file=described).SerializeToString())
        _protoc(root, [*texts])
        return list(FileDescriptorSet.FromString((root / "out").read_bytes()).file)


def _write(folder: Path, name: str, text: str) -> None:
    # protoc takes some names as options, or as files with options.
    if ".." in name.split("/") or name.startswith(("/", "-", "@")) or len(name) > 250:
        raise _bad_name(name)
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (ValueError, FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _bad_name(name) from None
    except OSError as error:
        if error.errno in _ABOUT_NAMES:
            raise _bad_name(name) from None
        raise


def _bad_name(name: str) -> RecordRejected:
    return unusable(f"Protobuf: {excerpt(name, 80)!r} can't be the name of a file in UTF-8")


def _protoc(root: Path, names: list[str]) -> None:
    places = ["-I.", f"-I{_PROTOS}", *(f"-I{path}" for path in _google_types())]
    options = ["--descriptor_set_in=../set", "--descriptor_set_out=../out", "--include_imports"]
    command = [sys.executable, "-P", "-c", _PROTOC, *places, *options, *names]
    with (root / "errors").open("wb") as errors:
        try:
            done = subprocess.run(
                command,
                cwd=root / "in",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=_SECONDS,
                check=False,
                start_new_session=True,  # a Ctrl-C is for the worker
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"protoc took more than {_SECONDS} s") from None
    if done.returncode:
        _require_room(root, done.returncode)
        with (root / "errors").open(errors="replace") as output:
            lines = output.read(_ERRORS).splitlines()
        problems = [line for line in lines if _PROBLEM.match(line)] or lines[:1]
        problem = problems[0] if problems else f"protoc ended with {done.returncode}"
        raise unusable(f"Protobuf: {excerpt(problem.removeprefix(f'{_ROOT}:'), 300)}")


def _require_room(root: Path, returncode: int) -> None:
    """Raise OSError for an end of protoc that is not the schema's fault."""
    if returncode == -signal.SIGKILL:
        raise OSError("protoc was killed: is the machine out of memory?")
    (root / "room").write_bytes(bytes(_ROOM))


def _google_types() -> Iterator[str]:
    """Yield the folder above google/type, of googleapis-common-protos."""
    for path in google.__path__:
        if (Path(path) / "type" / "money.proto").exists():
            yield str(Path(path).parent)
