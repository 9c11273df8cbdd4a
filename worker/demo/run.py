"""The demo, from its first process to its last line; imported when the command runs.

Owns: the order of the steps. One stack holds everything that is started and is always unwound;
    signals interrupt only where `Interrupts` allows it.
Thread: main.
Must not import: torch, transformers (the workers and a helper process do).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from worker.clock import SystemClock
from worker.core.counted import counted
from worker.demo.blocklist import allowed
from worker.demo.broker import EmbeddedBroker, needed_flags
from worker.demo.fallback_posts import fallback_posts
from worker.demo.feed import SampleFeed
from worker.demo.formats import AvroDemo, DemoFormat, DemoFormats, JsonDemo
from worker.demo.helpers import Helpers
from worker.demo.posts import RatedText, SampleUnavailable
from worker.demo.sample import DEFAULT_POSTS, PARTITIONS, sample_stream
from worker.demo.summary import Summary, next_steps, program, save_screenshot
from worker.demo.tally import Tally
from worker.demo.view import WIDTH, LiveView, PlainView, View
from worker.demo.workers import DemoWorkers, run_command
from worker.errors import StreamlabelError
from worker.kafka_io.samples import SampleProducer, Tail, sample_topics
from worker.limits import cores
from worker.processes import Interrupts
from worker.settings import InputSettings, KafkaSettings, read_environment

_SETTLE_S: Final = 5.0
_STEP_S: Final = 0.03


@dataclass(frozen=True)
class _TopicNames:
    """The topics and the consumer group of one demo."""

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
    """Run the demo; return 0 only if every promise held."""
    clock = SystemClock()
    # Keeps the client's log off the screen.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    console = Console(stderr=args.json, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    view = _view(console, clock, args)
    with Interrupts(clock) as interrupts, ExitStack() as stack:
        stack.callback(view.close)
        try:
            summary = _DemoRun(args, cache_dir, view, interrupts, stack, clock).run()
        except KeyboardInterrupt:
            view.close()
            view.say("stopping (Ctrl-C again kills what still runs)")
            raise
        view.close()
        console.print(summary.as_text())
        if args.screenshot:
            save_screenshot(args.screenshot, summary, _headline(args))
        elif summary.good:
            console.print(next_steps(program()))
    if args.json:
        print(summary.as_json(), flush=True)
    return 0 if summary.good else 1


class _DemoRun:
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
        self._helpers = Helpers(self._folder, stack, interrupts, clock, view.wait)
        self._left_out = 0

    def run(self) -> Summary:
        formats = self._formats()  # a registry starts while the rest is prepared
        kafka, names = self._broker_and_topics(new_names=formats.external)
        posts = self._allowed_posts()
        if self._args.model == "bundled":
            self._view.say("preparing the bundled model (cached for the next run)")
            self._helpers.prepare_model(self._cache_dir)
        format_ = formats.format(names.input, names.output)
        number = self._args.posts or min(DEFAULT_POSTS, len(posts))
        records = sample_stream(posts, number, InputSettings().max_bytes, format_.values)
        workers = self._start_workers(kafka, names, format_)
        tally = Tally(records, self._clock, self._unseen(), format_.read)
        self._stream(kafka, names, tally, workers)
        if self._args.keep:
            self._stay(workers)
        self._view.say("stopping the workers and auditing the topics")
        workers.stop()
        audit = self._audit(kafka, names)
        sample = {"posts": self._source, "posts_left_out": self._left_out}
        extra = sample | {"format": self._args.format}
        return Summary(audit, tally, tuple(tally.surprises()), self._args.rate, extra)

    def _formats(self) -> DemoFormats:
        if self._args.format == "json":
            return JsonDemo()
        url, stack = self._args.registry_url, self._stack
        return AvroDemo(url, stack, self._interrupts, self._clock, self._view)

    def _broker_and_topics(self, *, new_names: bool) -> tuple[KafkaSettings, _TopicNames]:
        external = read_environment("KAFKA_BOOTSTRAP_SERVERS")
        if external:
            self._view.say(f"using the broker at {external}")
        else:
            self._view.say("starting the embedded broker")
            broker = self._stack.enter_context(EmbeddedBroker(clock=self._clock))
            self._interrupts.on_second(broker.kill)
        # On servers of others each run gets topics, and subjects, of its own.
        suffix = f".demo-{uuid.uuid4().hex[:8]}" if external or new_names else ""
        kafka = KafkaSettings(bootstrap_servers=external or broker.bootstrap_servers)
        names = _TopicNames(
            f"texts.in{suffix}", f"texts.labelled{suffix}", f"texts.dead{suffix}", f"demo{suffix}"
        )
        partitions = dict.fromkeys((names.input, names.output, names.dead), PARTITIONS)
        topics = sample_topics(kafka, partitions, names.group, keep=not external)
        self._stack.enter_context(topics)
        return kafka, names

    def _allowed_posts(self) -> list[RatedText]:
        rated = self._posts()
        posts = allowed(rated)
        self._left_out = len(rated) - len(posts)
        if self._left_out:
            posts_left_out = counted(self._left_out, "post")
            self._view.say(f"leaving out {posts_left_out} with slurs or sexual words")
        return posts

    def _posts(self) -> list[RatedText]:
        if self._args.screenshot:  # a published picture can't show other people's tweets
            self._source = "fallback"
            return fallback_posts()
        self._view.say("getting the rated tweets (cached for the next run)")
        try:
            return self._helpers.tweets(self._cache_dir)
        except SampleUnavailable as error:
            self._view.say(f"can't get the tweets ({error}); using the posts of the package")
            self._source = "fallback"
            return fallback_posts()

    def _start_workers(
        self, kafka: KafkaSettings, names: _TopicNames, format_: DemoFormat
    ) -> DemoWorkers:
        number = self._args.workers
        self._view.say(f"starting {counted(number, 'worker')}")
        flags = {
            **names.flags(),
            **format_.flags,
            "--bootstrap-servers": kafka.bootstrap_servers,
            "--group-id": names.group,
            "--model": self._args.model,
            "--model-cache-dir": str(self._cache_dir),
            # Workers that each use every core would wait for each other.
            "--model-threads": str(cores(number)),
            "--delivery": self._args.delivery,
            "--log-format": "json",
        }
        if not read_environment("KAFKA_BOOTSTRAP_SERVERS"):
            flags |= needed_flags()
        # The posts are public, and only this machine can reach the page.
        command = [*run_command(flags), "--http-show-texts"]
        workers = DemoWorkers(command, self._folder, self._interrupts, self._clock)
        self._stack.callback(workers.end)
        workers.start(number)
        workers.wait_until_ready(lambda waited: self._view.wait("loading the model", waited))
        if number > 1 and not read_environment("KAFKA_BOOTSTRAP_SERVERS"):
            # The embedded broker ends the generation of all members, and with it their right to
            # commit, as soon as one joins: wait for the last rebalance before sending.
            self._interrupts.sleep(_SETTLE_S)
        if self._args.keep:
            self._say_urls(workers)
        return workers

    def _stream(
        self, kafka: KafkaSettings, names: _TopicNames, tally: Tally, workers: DemoWorkers
    ) -> None:
        producer = self._stack.enter_context(SampleProducer(kafka, names.input))
        tail = self._stack.enter_context(Tail(kafka, [names.output, names.dead], self._clock))
        feed = SampleFeed(tally, producer, tail, self._args.rate, self._clock)
        while not tally.finished:
            workers.check()
            try:
                with self._interrupts.allowed():
                    feed.step()
                    self._view.show(tally)
            except StreamlabelError:
                self._view.close()
                self._view.say(workers.logs())
                raise
            self._interrupts.sleep(_STEP_S)

    def _unseen(self) -> Callable[[str], bool] | None:
        """Return a test for texts that the bundled model, trained on most tweets, has not seen."""
        if self._args.model != "bundled" or self._source == "fallback":
            return None
        from worker.inference.bundled.corpus import part_of

        return lambda text: part_of(text) != "train"

    def _stay(self, workers: DemoWorkers) -> None:
        self._view.close()
        self._say_urls(workers)
        self._view.say("staying up until Ctrl-C")

        def wait() -> None:
            workers.check()
            self._interrupts.sleep(0.2)

        self._interrupts.repeat_until_signal(wait)

    def _say_urls(self, workers: DemoWorkers) -> None:
        for url in workers.urls:
            self._view.say(
                f"{url}/ is its live page (metrics and health: /metrics, /readyz, /livez)"
            )

    def _audit(self, kafka: KafkaSettings, names: _TopicNames) -> dict[str, Any]:
        flags = names.flags() | {
            "--bootstrap-servers": kafka.bootstrap_servers,
            "--group-id": names.group,
            "--delivery": self._args.delivery,
            "--allow-duplicates": "0",  # no worker was killed, so none may occur
        }
        arguments = [argument for pair in flags.items() for argument in pair]
        command = ["-P", "-m", "worker", "audit", "--json", "--to-end", *arguments]
        _, lines = self._helpers.output_of("auditing", command)
        audit: dict[str, Any] = json.loads(lines[-1])
        return audit


def _view(console: Console, clock: SystemClock, args: argparse.Namespace) -> View:
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console, clock, _headline(args))
    return PlainView(console, clock)


def _headline(args: argparse.Namespace) -> str:
    workers = counted(args.workers, "worker")
    broker = "embedded broker"
    if read_environment("KAFKA_BOOTSTRAP_SERVERS"):
        broker = "your broker"
    delivery = args.delivery.replace("_", " ")
    parts = ["streamlabel demo", workers, f"{Path(args.model).name} model", delivery, broker]
    return " · ".join([*parts, "Avro"] if args.format == "avro" else parts)
