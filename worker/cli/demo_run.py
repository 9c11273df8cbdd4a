"""The demo from its first process to its last line; `demo` loads it only when it runs.

Owns: the order of things. Everything that is started is on one stack that is unwound whatever
happens, and signals interrupt only where `Interrupts` allows it. Runs on: the main thread.
Must not import: torch, transformers (the workers and a helper process do).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from worker.cli.demo import PARTITIONS
from worker.clock import SystemClock
from worker.errors import Fatal, StreamlabelError
from worker.kafka_io.samples import SampleProducer, Tail, sample_topics
from worker.local.demo_stream import Stream
from worker.local.demo_summary import Summary
from worker.local.demo_tally import Tally
from worker.local.demo_view import WIDTH, LiveView, PlainView, View, frame
from worker.local.demo_workers import Workers, run_command
from worker.local.embedded import EmbeddedBroker
from worker.local.fallback_posts import fallback_posts
from worker.local.posts import RatedText, SampleUnavailable, load_rated
from worker.local.processes import Interrupts, last_lines, spawn, stop
from worker.local.stream import SampleRecord, sample_stream
from worker.settings import InputSettings, KafkaSettings, child_environment, read_environment

_STEP_S: Final = 0.03
_HELPER_GRACE_S: Final = 10.0

# In a process of its own: Ctrl-C can end it, and this one stays without torch. SIGTERM becomes
# an exception there, so that what it has half written is removed on the way out.
_HELPER: Final = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, signal.default_int_handler)
"""
_FETCH: Final = f"""{_HELPER}
from worker.local.posts import SampleUnavailable, load_rated
try:
    load_rated("tweets", Path(sys.argv[1]))
except SampleUnavailable as error:
    sys.exit(str(error))
"""
_PREPARE: Final = f"""{_HELPER}
from worker.errors import StreamlabelError
from worker.inference.bundled import prepare
try:
    prepare(Path(sys.argv[1]))
except StreamlabelError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class _Names:
    """The topics and the group of one demo."""

    input: str
    output: str
    dead: str
    group: str

    def flags(self) -> dict[str, str]:
        return {
            "--input-topic": self.input,
            "--output-topic": self.output,
            "--output-dead-letter-topic": self.dead,
        }


def perform(args: argparse.Namespace, cache_dir: Path) -> int:
    """Run the demo; return 0 only where all went as promised."""
    clock = SystemClock()
    logging.getLogger("kafka").addHandler(logging.NullHandler())  # not across the screen
    console = Console(stderr=args.json, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    view = _view(console, clock, args)
    with Interrupts(clock) as interrupts, ExitStack() as stack:
        stack.callback(view.close)
        try:
            summary = _Demo(args, cache_dir, view, interrupts, stack, clock).run()
        except KeyboardInterrupt:
            view.close()
            view.say("stopping (a second Ctrl-C does not wait for anything)")
            raise
        view.close()
        console.print(summary.for_people())
        if args.screenshot:
            _save_picture(args.screenshot, summary, _headline(args))
    if args.json:
        print(summary.as_json(), flush=True)
    return 0 if summary.good else 1


class _Demo:
    def __init__(
        self,
        args: argparse.Namespace,
        cache_dir: Path,
        view: View,
        interrupts: Interrupts,
        stack: ExitStack,
        clock: SystemClock,
    ) -> None:
        self._args = args
        self._cache_dir = cache_dir
        self._view = view
        self._interrupts = interrupts
        self._stack = stack
        self._clock = clock
        self._source = "tweets"
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))

    def run(self) -> Summary:
        kafka, names = self._broker_and_topics()
        records = self._records()
        if self._args.model == "bundled":
            self._prepare_model()
        workers = self._start_workers(kafka, names)
        tally = self._stream(kafka, names, records, workers)
        if self._args.keep:
            self._stay(workers)
        self._view.say("stopping the workers, auditing the topics")
        workers.stop()
        audit = self._audit(kafka, names)
        return Summary(audit, tally, tuple(tally.surprises()), {"posts": self._source})

    def _broker_and_topics(self) -> tuple[KafkaSettings, _Names]:
        external = read_environment("KAFKA_BOOTSTRAP_SERVERS")
        if external:
            self._view.say(f"using the broker at {external}")
            suffix = f".demo-{uuid.uuid4().hex[:8]}"  # a rerun, or two at once, must not meet
        else:
            self._view.say("starting the embedded broker")
            broker = self._stack.enter_context(EmbeddedBroker(clock=self._clock))
            self._interrupts.on_second(broker.kill)
            suffix = ""
        kafka = KafkaSettings(bootstrap_servers=external or broker.bootstrap_servers)
        names = _Names(
            f"texts.in{suffix}", f"texts.labelled{suffix}", f"texts.dead{suffix}", f"demo{suffix}"
        )
        partitions = dict.fromkeys((names.input, names.output, names.dead), PARTITIONS)
        made = sample_topics(kafka, partitions, names.group, keep=not external)
        self._stack.enter_context(made)
        return kafka, names

    def _records(self) -> list[SampleRecord]:
        posts = self._posts()
        number = self._args.posts or len(posts)
        return sample_stream(posts, number, InputSettings().max_bytes)

    def _posts(self) -> list[RatedText]:
        self._view.say("getting the rated tweets (once; they are kept)")
        try:
            return self._tweets()
        except SampleUnavailable as error:
            self._view.say(f"no tweets: {error}; taking the posts that come with streamlabel")
            self._source = "fallback"
            return fallback_posts()

    def _tweets(self) -> list[RatedText]:
        log = self._folder / "fetch.log"
        if self._helper(["-c", _FETCH, str(self._cache_dir)], log):
            raise SampleUnavailable(last_lines(log, 1).strip())
        return load_rated("tweets", self._cache_dir)

    def _prepare_model(self) -> None:
        self._view.say("preparing the bundled model (once; it is kept)")
        log = self._folder / "prepare.log"
        if self._helper(["-c", _PREPARE, str(self._cache_dir)], log):
            raise Fatal(f"the bundled model can't be prepared:\n{last_lines(log)}")

    def _start_workers(self, kafka: KafkaSettings, names: _Names) -> Workers:
        number = self._args.workers
        self._view.say(f"starting {number} worker{'s' if number > 1 else ''}")
        flags = names.flags() | {
            "--bootstrap-servers": kafka.bootstrap_servers,
            "--group-id": names.group,
            "--model": self._args.model,
            "--model-cache-dir": str(self._cache_dir),
            # Processes that all take all cores would only wait for each other.
            "--model-threads": str(max(1, (os.cpu_count() or 1) // number)),
            "--delivery": self._args.delivery,
            "--log-format": "json",
        }
        workers = Workers(run_command(flags), self._folder, self._interrupts, self._clock)
        self._stack.callback(workers.end)
        workers.start(number)
        workers.wait_until_ready()
        return workers

    def _stream(
        self, kafka: KafkaSettings, names: _Names, records: list[SampleRecord], workers: Workers
    ) -> Tally:
        tally = Tally(records, self._clock)
        producer = self._stack.enter_context(SampleProducer(kafka, names.input))
        tail = self._stack.enter_context(Tail(kafka, [names.output, names.dead], self._clock))
        stream = Stream(tally, producer, tail, self._args.rate, self._clock)
        try:
            while not tally.finished:
                with self._interrupts.allowed():
                    stream.step()
                    self._view.show(tally)
                workers.check()
                self._interrupts.sleep(_STEP_S)
        except StreamlabelError:
            self._view.close()
            self._view.say(workers.logs())
            raise
        return tally

    def _stay(self, workers: Workers) -> None:
        self._view.close()
        for url in workers.urls:
            self._view.say(f"{url}/metrics  {url}/readyz  {url}/livez")
        self._view.say("staying up until Ctrl-C")

        def wait() -> None:
            workers.check()
            self._interrupts.sleep(0.2)

        self._interrupts.until_one(wait)

    def _audit(self, kafka: KafkaSettings, names: _Names) -> dict[str, Any]:
        flags = names.flags() | {
            "--bootstrap-servers": kafka.bootstrap_servers,
            "--group-id": names.group,
            "--delivery": self._args.delivery,
            "--allow-duplicates": "0",  # nothing was killed here
        }
        words = [word for pair in flags.items() for word in pair]
        log, printed = self._folder / "audit.log", self._folder / "audit.json"
        command = ["-m", "worker", "audit", "--json", "--to-end", *words]
        code = self._helper(command, log, printed)
        lines = printed.read_text(encoding="utf-8").splitlines()
        if code not in (0, 1) or not lines:
            raise Fatal(f"the audit ended with {code}:\n{last_lines(log)}")
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def _helper(self, command: Sequence[str], log: Path, printed: Path | None = None) -> int:
        """Run Python with these arguments to its end, as a process that Ctrl-C ends too."""
        environ = child_environment(TMPDIR=str(self._folder))
        with log.open("wb") as errors, (printed or log).open("ab") as output:
            process = spawn([sys.executable, *command], output, environ, errors)
        self._stack.callback(stop, process, _HELPER_GRACE_S)
        self._interrupts.on_second(process.kill)
        return self._wait(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while (code := process.poll()) is None:
            self._interrupts.sleep(0.05)
        return code


def _view(console: Console, clock: SystemClock, args: argparse.Namespace) -> View:
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console, clock, _headline(args))
    return PlainView(console, clock)


def _headline(args: argparse.Namespace) -> str:
    workers = f"{args.workers} worker{'s' if args.workers > 1 else ''}"
    broker = "embedded broker"
    if read_environment("KAFKA_BOOTSTRAP_SERVERS"):
        broker = "your broker"
    promise = args.delivery.replace("_", " ")
    return f"streamlabel demo · {workers} · {args.model} model · {promise} · {broker}"


def _save_picture(path: Path, summary: Summary, headline: str) -> None:
    recorder = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    recorder.print(frame(summary.tally, headline))
    recorder.print(summary.for_people())
    recorder.save_svg(str(path), title="streamlabel demo")
