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
import re
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from worker.clock import SystemClock
from worker.demo.broker import EmbeddedBroker, needed_flags
from worker.demo.fallback_posts import fallback_posts
from worker.demo.feed import Feed
from worker.demo.helpers import Helpers
from worker.demo.posts import RatedText, SampleUnavailable
from worker.demo.sample import PARTITIONS, SampleRecord, sample_stream
from worker.demo.summary import Summary
from worker.demo.tally import Tally
from worker.demo.view import WIDTH, LiveView, PlainView, View, frame
from worker.demo.workers import DemoWorkers, run_command
from worker.errors import StreamlabelError
from worker.kafka_io.samples import SampleProducer, Tail, sample_topics
from worker.processes import Interrupts
from worker.settings import InputSettings, KafkaSettings, read_environment

_SETTLE_S: Final = 5.0
_STEP_S: Final = 0.03


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
        self._helpers = Helpers(self._folder, stack, interrupts)

    def run(self) -> Summary:
        kafka, names = self._broker_and_topics()
        records = self._records()
        if self._args.model == "bundled":
            self._view.say("preparing the bundled model (kept for the next time)")
            self._helpers.prepare_model(self._cache_dir)
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
        if self._args.screenshot:  # the picture is ours to publish, the tweets are not
            self._source = "fallback"
            return fallback_posts()
        self._view.say("getting the rated tweets (kept for the next time)")
        try:
            return self._helpers.tweets(self._cache_dir)
        except SampleUnavailable as error:
            self._view.say(f"no tweets: {error}; taking the posts that come with streamlabel")
            self._source = "fallback"
            return fallback_posts()

    def _start_workers(self, kafka: KafkaSettings, names: _Names) -> DemoWorkers:
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
        if not read_environment("KAFKA_BOOTSTRAP_SERVERS"):
            flags |= needed_flags()
        # The posts are public ones, and the page is for whoever started the demo.
        command = [*run_command(flags), "--http-show-texts"]
        workers = DemoWorkers(command, self._folder, self._interrupts, self._clock)
        self._stack.callback(workers.end)
        workers.start(number)
        workers.wait_until_ready()
        if number > 1 and not read_environment("KAFKA_BOOTSTRAP_SERVERS"):
            # The embedded broker ends everybody's generation, and with it the right to commit,
            # the moment a member joins: let the last one's rebalance pass before the stream.
            self._interrupts.sleep(_SETTLE_S)
        if self._args.keep:
            self._say_where(workers)
        return workers

    def _stream(
        self, kafka: KafkaSettings, names: _Names, records: list[SampleRecord], workers: DemoWorkers
    ) -> Tally:
        tally = Tally(records, self._clock, self._unseen())
        producer = self._stack.enter_context(SampleProducer(kafka, names.input))
        tail = self._stack.enter_context(Tail(kafka, [names.output, names.dead], self._clock))
        stream = Feed(tally, producer, tail, self._args.rate, self._clock)
        while not tally.finished:
            workers.check()
            try:
                with self._interrupts.allowed():
                    stream.step()
                    self._view.show(tally)
            except StreamlabelError:
                self._view.close()
                self._view.say(workers.logs())
                raise
            self._interrupts.sleep(_STEP_S)
        return tally

    def _unseen(self) -> Callable[[str], bool] | None:
        """Most of the tweets were in the bundled model's training: the summary tells them apart."""
        if self._args.model != "bundled" or self._source == "fallback":
            return None
        from worker.inference.bundled.corpus import part_of

        return lambda text: part_of(text) != "train"

    def _stay(self, workers: DemoWorkers) -> None:
        self._view.close()
        self._say_where(workers)
        self._view.say("staying up until Ctrl-C")

        def wait() -> None:
            workers.check()
            self._interrupts.sleep(0.2)

        self._interrupts.repeat_until_signal(wait)

    def _say_where(self, workers: DemoWorkers) -> None:
        for url in workers.urls:
            self._view.say(
                f"{url}/ is its live page (metrics and health: /metrics, /readyz, /livez)"
            )

    def _audit(self, kafka: KafkaSettings, names: _Names) -> dict[str, Any]:
        flags = names.flags() | {
            "--bootstrap-servers": kafka.bootstrap_servers,
            "--group-id": names.group,
            "--delivery": self._args.delivery,
            "--allow-duplicates": "0",  # nothing was killed here
        }
        words = [word for pair in flags.items() for word in pair]
        command = ["-P", "-m", "worker", "audit", "--json", "--to-end", *words]
        _, lines = self._helpers.output_of(command)
        found: dict[str, Any] = json.loads(lines[-1])
        return found


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
    return f"streamlabel demo · {workers} · {Path(args.model).name} model · {promise} · {broker}"


def _save_picture(path: Path, summary: Summary, headline: str) -> None:
    recorder = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    recorder.print(frame(summary.tally, headline))
    recorder.print(summary.for_people())
    drawn = recorder.export_svg(title="streamlabel demo")
    # The exporter links fonts on a foreign host; the reader's own monospace font will do.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")
