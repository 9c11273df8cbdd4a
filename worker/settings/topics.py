"""The topics of one worker, named in one place.

Owns: `WorkerTopics`, which `Settings.topics` returns; the place of `{topic}` in an output's name.
Thread: any; the value is frozen.
Must not import: anything of worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

INPUT_NAME: Final = "{topic}"  # in `output.topic`, stands for the name of the input
LONGEST_NAME: Final = 249  # characters that Kafka allows
_GLOBAL_FLAGS: Final = re.compile(r"(\(\?[aiLmsux]+\))+")  # must be at the beginning


def output_of(output: str, name: str) -> str:
    """Return `output.topic` for this input: with `{topic}`, each input has its own."""
    return output.replace(INPUT_NAME, name)


@dataclass(frozen=True, slots=True)
class WorkerTopics:
    """The topics that a worker reads and writes.

    Attributes:
        inputs: names; with a pattern, those that are known to match.
        output: where results go; with `{topic}`, each input has an output of its own.
        dead_letters: where dead letters of every input go.
        pattern: an input is each topic whose whole name matches; None for a fixed list.
        routed: names of routes and their topics, in which `{topic}` may stand. A topic with
            `{label}` is left out: it is known once the labels are.
        filtered: where the notes of filtered records go, if anywhere.
    """

    inputs: tuple[str, ...]
    output: str
    dead_letters: str
    pattern: str | None = None
    routed: tuple[tuple[str, str], ...] = ()
    filtered: str | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The topics that the worker writes to: those of results, of notes and of dead letters."""
        return *self.all_results, *((self.filtered,) if self.filtered else ()), self.dead_letters

    @property
    def required(self) -> tuple[str, ...]:
        """The topics that any worker needs: all but those of routes and of notes."""
        return *self.inputs, *self.results, self.dead_letters

    @property
    def results(self) -> tuple[str, ...]:
        """The topics of `output.topic`: one, or one for each input."""
        return tuple(output for output, _ in self.feeds)

    @property
    def all_results(self) -> tuple[str, ...]:
        """The topics of results, those of routes too."""
        return tuple(output for output, _ in self.result_feeds)

    @property
    def feeds(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each topic of results, with the inputs that it is fed from."""
        if INPUT_NAME not in self.output:
            return ((self.output, self.inputs),)
        return tuple((self.output_of(name), (name,)) for name in self.inputs)

    @property
    def result_feeds(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each topic of results, those of routes too, with the inputs that it is fed from."""
        feeds = {name: dict.fromkeys(inputs) for name, inputs in self.feeds}
        for _, template in self.routed:
            if INPUT_NAME not in template:
                feeds.setdefault(template, {}).update(dict.fromkeys(self.inputs))
                continue
            for name in self.inputs:
                feeds.setdefault(output_of(template, name), {})[name] = None
        return tuple((output, tuple(inputs)) for output, inputs in feeds.items())

    @property
    def all_feeds(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each output with the inputs that it is fed from, that of dead letters last."""
        notes = ((self.filtered, self.inputs),) if self.filtered else ()
        return *self.result_feeds, *notes, (self.dead_letters, self.inputs)

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic: the inputs, then the outputs."""
        return *self.inputs, *self.outputs

    def output_of(self, name: str) -> str:
        """Return the topic for the results of this input."""
        return output_of(self.output, name)

    def matches(self, name: str) -> bool:
        """Return whether a topic of this name is an input: by the pattern, or by the list."""
        if self.pattern is None:
            return name in self.inputs
        return re.fullmatch(self.pattern, name) is not None

    def among(self, names: Iterable[str]) -> WorkerTopics:
        """Return the topics with the inputs that these names have, if there is a pattern."""
        if self.pattern is None:
            return self
        return replace(self, inputs=tuple(sorted(filter(self.matches, names))))

    def conflicts(self) -> Iterator[str]:
        """Yield a sentence for each output that is unusable: an input too, or a bad name."""
        if self.output == INPUT_NAME:
            yield (
                f"output.topic = {INPUT_NAME!r} is the input itself: add to the name, as in "
                f"'{INPUT_NAME}.labelled'"
            )
            return
        for name in self.inputs if INPUT_NAME in self.output else ():
            output = self.output_of(name)
            if problem := self._problem(output):
                yield (
                    f"output.topic = {self.output!r} gives input {name!r} the output "
                    f"{output!r}, {problem}"
                )
        fixed = {} if INPUT_NAME in self.output else {"output.topic": self.output}
        fixed |= {"output.filtered_topic": self.filtered} if self.filtered else {}
        for path, output in (fixed | {"output.dead_letter_topic": self.dead_letters}).items():
            if self.matches(output):
                yield f"{path} = {output!r} is an output, {self._loop()}"
        yield from self._conflicts_of_routes()

    def _conflicts_of_routes(self) -> Iterator[str]:
        for route, template in self.routed:
            names = self.inputs if INPUT_NAME in template else ("",)
            for output in dict.fromkeys(output_of(template, name) for name in names):
                if problem := self._problem(output):
                    yield f"route {route!r} sends results to {output!r}, {problem}"

    def _problem(self, output: str) -> str | None:
        for path, other in (("dead_letter", self.dead_letters), ("filtered", self.filtered)):
            if output == other:
                return f"which is output.{path}_topic: choose another name for one of them"
        if output in (".", "..") or output.startswith("__"):
            return "which is no name for a topic of results: choose another one"
        if len(output) > LONGEST_NAME:
            return f"whose {len(output)} characters are more than Kafka's {LONGEST_NAME}"
        return self._loop() if self.matches(output) else None

    def _loop(self) -> str:
        if self.pattern is None:
            return "which is an input too: the worker would read what it wrote"
        return (
            f"which input.topic_pattern = {self.pattern!r} matches: the worker would read what it "
            f"wrote. Exclude it, as with '{self._without_outputs(self.pattern)}'"
        )

    def _without_outputs(self, pattern: str) -> str:
        """Return the pattern without every output that it matches, also those of later inputs."""
        outputs = [self.output] if any(map(self.matches, self.results)) else []
        others = (self.dead_letters, self.filtered or "", *(topic for _, topic in self.routed))
        outputs += [name for name in dict.fromkeys(others) if self.matches(name)]
        excluded = "|".join(
            ".*".join(map(re.escape, output.split(INPUT_NAME))) + "$" for output in outputs
        )
        flags = _GLOBAL_FLAGS.match(pattern)
        head = flags[0] if flags else ""
        return f"{head}(?!{excluded})(?:{pattern[len(head) :]})"
