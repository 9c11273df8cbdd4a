"""Compares our engine with OpenVINO, ONNX Runtime and `pipeline()`, in the same run.

    python -m benchmarks.engines
    python -m benchmarks.engines --models bundled --rounds 1 --append

Every engine has a process of its own. In each round all of them label the same new tweets,
tokenising included, in windows of the same sizes and in shuffled turns. Only ratios within a run
count. Prints tables and writes engines.json into the results of this machine. An engine that can't
be installed, exits or fails is reported with the reason.

Owns: engines.json.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.engines.children import ROOT, Child
from benchmarks.engines.contenders import Contender, contenders
from benchmarks.engines.figures import FILE, EngineModel, Engines, engines
from benchmarks.engines.table import markdown
from benchmarks.engines.turns import CALIBRATION, Entrant, Rounds, texts_of, windows_of
from benchmarks.machines import here
from benchmarks.peers.environments import HERE, install, python
from benchmarks.random_model import random_model
from worker.bench.machine import cores_at_work, processor
from worker.cli.main import DONE, FAILED, INTERRUPTED
from worker.cli.parser import USAGE_ERROR
from worker.clock import Clock, SystemClock
from worker.demo.posts import load_rated
from worker.errors import SettingsError, StreamlabelError
from worker.inference.checkpoint import resolve
from worker.limits import cores
from worker.processes import Interrupts
from worker.settings import ModelSettings

_ENVIRONMENT: Final = "openvino"  # a peer's, which has ONNX Runtime and transformers too
_MODELS: Final = ("random", "bundled")
_QUICK: Final[dict[str, Any]] = {"models": ["bundled"], "texts": 96, "rounds": 1, "windows": [32]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return 0, even if another engine failed: the table has the reason."""
    args = _parser().parse_args(arguments)
    if args.quick:
        vars(args).update(_QUICK)
    try:
        result = _compare(args)
    except StreamlabelError as error:
        print(f"benchmarks.engines: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, SettingsError) else FAILED
    except KeyboardInterrupt:
        print("benchmarks.engines: interrupted", file=sys.stderr)
        return INTERRUPTED
    if not args.quick and not args.only:  # the file holds complete results only
        folder = here()
        result = combined(engines(folder), result, append=args.append)
        text = result.model_dump_json(indent=2) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")
    print(markdown(result))
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.engines", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--models", nargs="+", choices=_MODELS, default=_MODELS, metavar="MODEL",
        help=f"only these of {', '.join(_MODELS)}")  # fmt: skip
    parser.add_argument("--texts", type=_positive, default=768, help="tweets of a round [768]")
    parser.add_argument("--rounds", type=_positive, default=3, help="rounds of each model [3]")
    parser.add_argument("--windows", type=_positive, nargs="+", default=[128, 512],
        help="texts of a window, besides all texts at once [128 512]")  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="WORD",
        help="only contenders with one of these words, such as int8; writes no file")  # fmt: skip
    parser.add_argument("--append", action="store_true",
        help="add the rounds to those of the file, if machine, versions and sizes are the same")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
        help="one round of few texts with the bundled model, under a minute; writes no file")  # fmt: skip
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is too small: give 1 or more")
    return number


def combined(earlier: Engines | None, later: Engines, *, append: bool) -> Engines:
    """Return the new results with the earlier ones of other models, all of the same machine.

    Args:
        earlier: the file's; dropped if they are another machine's.
        later: the new ones.
        append: keep the earlier rounds of the same models too, if their conditions are the same.
    """
    if earlier is None or (earlier.cpu, earlier.cores) != (later.cpu, later.cores):
        return later
    models = {model.name: model for model in earlier.models}
    for model in later.models:
        before = models.get(model.name)
        added = append and before and model.continues(before)
        models[model.name] = model.after(before) if added and before else model
    return later.model_copy(update={"models": tuple(models.values())})


def _compare(args: argparse.Namespace) -> Engines:
    clock, cache_dir = SystemClock(), ModelSettings().cache_dir.expanduser()
    pool = sorted({post.text for post in load_rated("tweets", cache_dir)})
    pool = texts_of(pool, 0, len(pool))
    texts_of(pool[CALIBRATION:], 0, args.texts)  # refuses a wrong size before minutes of installing
    cpu, features = processor()
    chosen = [c for c in contenders(features) if _wanted(c, args.only)]
    if not chosen:
        raise SettingsError(f"--only {' '.join(args.only)} names no engine: give a word of a name")
    with Interrupts(clock) as interrupts:
        _say("preparing the environment of the other engines")
        failure = install(_ENVIRONMENT, interrupts, clock)
        models = [
            _Comparison(_checkpoint(name), chosen, failure, pool, args, interrupts, clock).run()
            for name in args.models
        ]
    return Engines(cpu=cpu, cores=cores(), features=features, models=tuple(models))


def _wanted(contender: Contender, words: Sequence[str] | None) -> bool:
    return not words or any(word.lower() in contender.name.lower() for word in words)


@dataclass(frozen=True)
class _Comparison:
    """All engines on one model.

    Attributes:
        folder: the model's, which all engines read.
        chosen: the contenders.
        failure: why the other engines' environment is missing, or None.
        pool: all texts, shuffled, so that the first of them are a sample.
        args: sizes.
        interrupts: lets Ctrl-C end a wait.
        clock: for pauses.
    """

    folder: Path
    chosen: Sequence[Contender]
    failure: str | None
    pool: Sequence[str]
    args: argparse.Namespace
    interrupts: Interrupts
    clock: Clock

    def run(self) -> EngineModel:
        busy, args = cores_at_work(self.clock), self.args
        before = self._rounds_before()
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="engines-")))
            entrants = list(self._entrants(scratch, stack))
            for entrant in entrants:
                entrant.load(self._options(scratch))
            windows = windows_of(args.windows, args.texts)
            rounds = Rounds(entrants, windows, self.interrupts.sleep)
            rounds.warm_up(self.pool[: min(CALIBRATION, args.texts)])
            for number in range(before, before + args.rounds):
                rounds.run(number, texts_of(self.pool[CALIBRATION:], number, args.texts))
            figures = tuple(entrant.figures() for entrant in entrants)
        return EngineModel(
            name=self.folder.name,
            date=datetime.now(UTC).date().isoformat(),
            busy_cores=busy,
            threads=cores(),
            texts=args.texts,
            rounds=args.rounds,
            engines=figures,
        )

    def _rounds_before(self) -> int:
        """Return the rounds in the file, so that appended ones have other texts."""
        earlier = engines(here()) if self.args.append else None
        named = [m for m in (earlier.models if earlier else ()) if m.name == self.folder.name]
        return named[0].rounds if named else 0

    def _entrants(self, scratch: Path, stack: ExitStack) -> Iterator[Entrant]:
        """Start all processes, so that their imports run side by side."""
        for number, contender in enumerate(self.chosen):
            foreign = not contender.ours
            if foreign and self.failure:
                yield Entrant(contender, None, _say, failed=self.failure)
                continue
            interpreter = python(_ENVIRONMENT) if foreign else sys.executable
            command = (interpreter, "-P", "-m", "benchmarks.engines.serve")
            module = ("--module", contender.module)
            folder = scratch / str(number)
            child = Child([*command, *module], folder, self.interrupts, self.clock)
            stack.callback(child.end)
            yield Entrant(contender, child, _say)

    def _options(self, scratch: Path) -> dict[str, Any]:
        lock = (HERE / _ENVIRONMENT / "requirements.txt").read_bytes()
        return {
            "name": str(self.folder),
            "threads": cores(),
            "calibration": self.pool[:CALIBRATION],
            "cache": str(ROOT / ".cache" / "engines"),
            "lock": hashlib.sha256(lock).hexdigest(),
            "scratch": str(scratch),
        }


def _checkpoint(name: str) -> Path:
    """Return the folder of one of the models."""
    if name == "bundled":
        return resolve(ModelSettings(name=name)).folder
    return random_model(ModelSettings().cache_dir.expanduser())


def _say(message: str) -> None:
    print(f"benchmarks.engines: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
