"""Makes the class of a Protobuf message from the text of its file.

Owns: nothing.
Thread: any.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

_BUNDLED = Path(grpc_tools.__path__[0]) / "_proto"  # Protobuf's own types


def message_class(text: str, name: str) -> Any:
    """Return a message's class.

    Args:
        text: of the `.proto` file. It must be valid: protoc runs in this process.
        name: full name of the message.
    """
    with TemporaryDirectory() as folder:
        source, result = Path(folder, "source.proto"), Path(folder, "result")
        source.write_text(text, encoding="utf-8")
        options = [f"-I{folder}", f"-I{_BUNDLED}", f"-o{result}", "--include_imports"]
        if code := protoc.main(["protoc", *options, source.name]):
            raise ValueError(f"protoc ended with code {code}")
        files = FileDescriptorSet.FromString(result.read_bytes()).file
    pool = DescriptorPool()
    for file in files:  # each after those that it imports
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(name))
