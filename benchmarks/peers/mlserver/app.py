"""MLServer with its Hugging Face runtime and adaptive batching, fed by a small consumer loop.

The loop keeps two of the server's batches in flight, one request a text, so that the server can
batch as it is made to.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

BATCH = 32
PATIENCE = 300  # seconds for the server to load the model


def settings(folder: Path, model: str, ports: list[int]) -> None:
    server = {"http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2]}
    server |= {"host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    hugging_face = {
        "name": "labels",
        "implementation": "mlserver_huggingface.HuggingFaceRuntime",
        "max_batch_size": BATCH,
        "max_batch_time": 0.02,
        "parameters": {"extra": {"task": "text-classification", "pretrained_model": model}},
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(hugging_face))


def free_ports(number: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


async def ready(client: httpx.AsyncClient, server: subprocess.Popen[bytes]) -> None:
    for _ in range(PATIENCE):
        if server.poll() is not None:
            sys.exit(f"mlserver ended with {server.returncode}")
        try:
            if (await client.get("/v2/models/labels/ready")).is_success:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(1)
    sys.exit("mlserver is not ready")


async def infer(client: httpx.AsyncClient, text: str) -> bytes:
    array = {"name": "array_inputs", "shape": [1], "datatype": "BYTES", "data": [text]}
    answer = await client.post("/v2/models/labels/infer", json={"inputs": [array]})
    answer.raise_for_status()
    (output,) = answer.json()["outputs"]
    return str(output["data"][0]).encode()


async def serve(args: argparse.Namespace, client: httpx.AsyncClient) -> None:
    options: dict[str, Any] = {"bootstrap_servers": args.bootstrap_servers}
    consumer = AIOKafkaConsumer(
        args.input,
        group_id=args.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **options,
    )
    producer = AIOKafkaProducer(acks="all", **options)
    async with consumer, producer:
        while True:
            polled = await consumer.getmany(timeout_ms=200, max_records=2 * BATCH)
            records = [record for part in polled.values() for record in part]
            texts = [json.loads(record.value)["text"] for record in records]
            labels = await asyncio.gather(*(infer(client, text) for text in texts))
            for record, label in zip(records, labels, strict=True):
                await producer.send(args.output, key=record.key, value=label)
            if records:
                await producer.flush()
                await consumer.commit()


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap-servers", "input", "output", "group", "model"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlserver-") as folder:
        ports = free_ports(3)
        settings(Path(folder), args.model, ports)
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("mlserver")), "start", folder]
        )
        address = f"http://127.0.0.1:{ports[0]}"
        try:
            async with httpx.AsyncClient(base_url=address, timeout=120, trust_env=False) as client:
                await ready(client, server)
                await serve(args, client)
        finally:
            server.terminate()
            server.wait()


asyncio.run(main())
