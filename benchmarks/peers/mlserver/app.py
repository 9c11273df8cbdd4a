"""MLServer with its Hugging Face runtime and adaptive batching, fed by a small consumer loop.

As recommended: adaptive batching by `max_batch_size` and `max_batch_time`, which have no defaults to
go by (https://docs.seldon.ai/mlserver, "Adaptive Batching"), and inference in a process of its own,
which is the server's default ("Parallel Inference"). The loop sends one request a text, so that the
server can batch as it is made to, and keeps three batches' worth under way, so that it always can.
MLServer's own Kafka endpoint takes whole inference requests, and not records that hold a text.
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
UNDER_WAY = 3  # one that is computed, one that waits, one that is sent
PATIENCE = 300  # seconds for the server to load the model

# A batch of requests has one set of parameters, the model's own: all labels instead of the best.
CONFIG = {"return_all_scores": True}
# The runtime takes a padding token of id 0, which BERT's is, for none, and then calls the model text
# by text (its issue 2251). Padding is masked, so any other token does as well.
PADDING = {"pad_token": "[SEP]"}
# DistilBERT in the transformers that the runtime still works with takes no segment ids, which BERT's
# tokenizer makes; without them BERT takes them to be zero, as they are for one text.
INPUTS = {"model_input_names": ["input_ids", "attention_mask"]}


def checkpoint(folder: Path, model: Path) -> Path:
    """The model as it is, but for the workarounds above."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    for name, changes in (
        ("config.json", CONFIG),
        ("tokenizer_config.json", PADDING | INPUTS),
        ("special_tokens_map.json", PADDING),
    ):
        told = json.loads((model / name).read_text()) | changes
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(told))
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
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


async def ready(session: aiohttp.ClientSession, server: subprocess.Popen[bytes]) -> None:
    for _ in range(PATIENCE):
        if server.poll() is not None:
            sys.exit(f"mlserver ended with {server.returncode}")
        try:
            async with session.get("/v2/models/labels/ready") as answer:
                if answer.ok:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(1)
    sys.exit("mlserver is not ready")


async def infer(session: aiohttp.ClientSession, record: Any) -> bytes:
    text = json.loads(record.value)["text"]
    array = {"name": "array_inputs", "shape": [1], "datatype": "BYTES", "data": [text]}
    async with session.post("/v2/models/labels/infer", json={"inputs": [array]}) as answer:
        answer.raise_for_status()
        (output,) = (await answer.json())["outputs"]
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
    under_way: deque[tuple[list[Any], asyncio.Future[list[bytes]]]] = deque()
    async with consumer, producer:
        while True:
            patience = 0 if under_way else 200
            polled = await consumer.getmany(timeout_ms=patience, max_records=BATCH)
            records = [record for part in polled.values() for record in part]
            if records:
                asked = asyncio.gather(*(infer(session, record) for record in records))
                under_way.append((records, asked))
            if len(under_way) == UNDER_WAY or (under_way and not records):
                done, labels = under_way.popleft()
                sent = [
                    await producer.send(args.output, key=record.key, value=value)
                    for record, value in zip(done, await labels, strict=True)
                ]
                await asyncio.gather(*sent)  # raises where the broker refused one
                offsets = {TopicPartition(one.topic, one.partition): one.offset for one in done}
                await consumer.commit({one: last + 1 for one, last in offsets.items()})


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
