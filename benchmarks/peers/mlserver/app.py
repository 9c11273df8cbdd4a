"""MLServer with its Hugging Face runtime and adaptive batching, called by a small consumer loop.

As the documentation recommends: adaptive batching with `max_batch_size` and `max_batch_time`, which
have no defaults (https://docs.seldon.ai/mlserver, "Adaptive Batching"), and inference in a separate
process, the server's default ("Parallel Inference"). The loop sends a request for each text, which
the server batches, and keeps three batches of requests in flight. MLServer's own Kafka endpoint
accepts inference requests only, not records with a text.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

BATCH = 32
MAX_IN_FLIGHT = 3  # batches: one is computed, one waits, one is sent
READY_TIMEOUT_S = 300  # includes loading the model

# All requests of a batch share the model's parameters: return all labels instead of the best.
CONFIG = {"return_all_scores": True}
# The runtime mistakes a padding token of id 0, such as BERT's, for none, and then calls the model
# text by text (its issue 2251). Padding is masked, so any other token gives the same result.
PADDING = {"pad_token": "[SEP]"}
# In the transformers release that the runtime works with, DistilBERT takes no segment ids, which
# BERT's tokenizer returns. Without them BERT assumes zero, the right value for a single text.
INPUTS = {"model_input_names": ["input_ids", "attention_mask"]}


def checkpoint(folder: Path, model: Path) -> Path:
    """Link to the model's files, with the workarounds above applied."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    for name, changes in (
        ("config.json", CONFIG),
        ("tokenizer_config.json", PADDING | INPUTS),
        ("special_tokens_map.json", PADDING),
    ):
        document = json.loads((model / name).read_text()) | changes
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(document))
    return folder


def settings(folder: Path, model: Path, ports: list[int]) -> None:
    server = {"http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2]}
    server |= {"host": "127.0.0.1", "debug": False}
    hugging_face = {
        "task": "text-classification",
        "pretrained_model": str(checkpoint(folder / "checkpoint", model)),
        "framework": "pt",
    }
    labels = {
        "name": "labels",
        "implementation": "mlserver_huggingface.HuggingFaceRuntime",
        "max_batch_size": BATCH,
        "max_batch_time": 0.05,
        "parameters": {"extra": hugging_face},
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(labels))


def free_ports(number: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


async def ready(session: aiohttp.ClientSession, server: subprocess.Popen[bytes]) -> None:
    for _ in range(READY_TIMEOUT_S):
        if server.poll() is not None:
            sys.exit(f"mlserver exited with code {server.returncode}")
        try:
            async with session.get("/v2/models/labels/ready") as response:
                if response.ok:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(1)
    sys.exit(f"mlserver is not ready after {READY_TIMEOUT_S} s")


async def infer(session: aiohttp.ClientSession, record: Any) -> bytes:
    text = json.loads(record.value)["text"]
    array = {"name": "array_inputs", "shape": [1], "datatype": "BYTES", "data": [text]}
    async with session.post("/v2/models/labels/infer", json={"inputs": [array]}) as response:
        response.raise_for_status()
        (output,) = (await response.json())["outputs"]
    return str(output["data"][0]).encode()


async def serve(args: argparse.Namespace, session: aiohttp.ClientSession) -> None:
    options: dict[str, Any] = {"bootstrap_servers": args.bootstrap_servers}
    consumer = AIOKafkaConsumer(
        args.input,
        group_id=args.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **options,
    )
    producer = AIOKafkaProducer(acks="all", **options)
    in_flight: deque[tuple[list[Any], asyncio.Future[list[bytes]]]] = deque()
    async with consumer, producer:
        while True:
            timeout_ms = 0 if in_flight else 200
            polled = await consumer.getmany(timeout_ms=timeout_ms, max_records=BATCH)
            records = [record for part in polled.values() for record in part]
            if records:
                requests = asyncio.gather(*(infer(session, record) for record in records))
                in_flight.append((records, requests))
            if len(in_flight) == MAX_IN_FLIGHT or (in_flight and not records):
                done, labels = in_flight.popleft()
                sent = [
                    await producer.send(args.output, key=record.key, value=value)
                    for record, value in zip(done, await labels, strict=True)
                ]
                await asyncio.gather(*sent)  # raises if the broker refused a record
                offsets = {TopicPartition(r.topic, r.partition): r.offset + 1 for r in done}
                await consumer.commit(offsets)


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap-servers", "input", "output", "group", "model"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlserver-") as folder:
        ports = free_ports(3)
        settings(Path(folder), Path(args.model), ports)
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("mlserver")), "start", folder], cwd=folder
        )
        try:
            async with aiohttp.ClientSession(
                f"http://127.0.0.1:{ports[0]}", connector=aiohttp.TCPConnector(limit=0)
            ) as session:
                await ready(session, server)
                await serve(args, session)
        finally:
            server.terminate()
            server.wait()


asyncio.run(main())
