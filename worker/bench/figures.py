"""The figures of `streamlabel bench`, and the JSON file that holds them.

Owns: the form of that file, for the plan, the plot, the table and the project's own tables. Pure,
    except for `read`.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.errors import SettingsError

FORMAT: Final = 1


class _Figures(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MachineInfo(_Figures):
    """The machine and its software; `features` are the processor's matrix and vector extensions."""

    cpu: str
    cores: int
    features: tuple[str, ...]
    python: str
    torch: str
    broker: str


class ModelInfo(_Figures):
    """The model as it ran; `tokens_per_text` is a mean that includes special tokens."""

    name: str
    engine: str
    dtype: str
    device: str
    threads: int
    max_tokens: int
    tokens_per_text: float


class EnginePoint(_Figures):
    """The engine at one token budget.

    Attributes:
        forward_tokens: maximum tokens of a forward pass (`batch.forward_tokens`).
        window: texts that are sorted and cut together (`batch.max_records`).
        window_s: seconds for one full window.
        cpu_us_per_text: CPU microseconds a text of all threads; None in files of older versions.
    """

    forward_tokens: int
    window: int
    texts_per_s: float
    tokens_per_s: float
    window_s: float
    cpu_us_per_text: float | None = None


class DtypeResult(_Figures):
    """The engine in another number type, in the same rounds.

    Attributes:
        dtype: the number type that was asked for (`model.dtype`).
        point: its speed; None if it was refused.
        refused: the reason.
    """

    dtype: str
    point: EnginePoint | None = None
    refused: str | None = None


class PrimitivesMade(_Figures):
    """Primitives that oneDNN made, for 1,000 texts.

    A primitive is code for one operation at one shape; a pass of a new shape waits for it.

    Attributes:
        first: in the first texts after the warm-up.
        later: after the measured rounds, in new texts.
    """

    first: float
    later: float


class Roofline(_Figures):
    """The speed of bare matrix products at the model's shapes; `share` is the engine's part of it.

    FLOP of a text of T tokens: 2*T*(weights of the linears that process each token)
    + 2*(weights of those that process the text once) + 4*T*T*hidden*layers for attention.
    """

    gemm_flop_per_s: float
    engine_flop_per_s: float
    flop_per_token: float
    share: float
    way: str


class EngineResult(_Figures):
    """The engine without a broker; every figure is a median over `rounds` interleaved rounds.

    Each round has other texts than the one before, in an order of its own.

    Attributes:
        texts: texts of a round.
        configured: at the settings in force.
        sweep: at other budgets, the smallest first.
        pipeline_texts_per_s: transformers' `pipeline()`, float32, 32 texts in arrival order.
        to_pipeline: texts/s of the engine at its settings, divided by the pipeline's.
        tokenise_texts_per_s: the tokeniser alone, which runs in parallel to the model in a worker.
        roofline: None if torch has no matrix products of the model's number type.
        one_text_s: seconds for a forward pass of a single text, after a pause.
        primitives: None on a GPU, in a torch without oneDNN and in files of older versions.
        dtypes: other number types that this machine computes in.
    """

    texts: int
    rounds: int
    configured: EnginePoint
    sweep: tuple[EnginePoint, ...]
    pipeline_texts_per_s: float
    to_pipeline: float
    tokenise_texts_per_s: float
    roofline: Roofline | None
    one_text_s: float
    primitives: PrimitivesMade | None = None
    dtypes: tuple[DtypeResult, ...] = ()


class CpuUse(_Figures):
    """CPU microseconds a record, over the middle 80 % of a drain; medians.

    Attributes:
        worker: of the worker's process.
        broker: of the broker's process; None if it is not visible on this machine.
        clients: of the process that reads the outcomes; the backlog was sent before.
        worker_to_engine: `worker` divided by the engine's CPU time for a text, measured next to
            the same drain.
    """

    worker: float
    broker: float | None
    clients: float | None
    worker_to_engine: float | None


class EndToEnd(_Figures):
    """A backlog drained by one worker; `records_per_s` is the median of `rates`.

    Attributes:
        to_engine: the median of each drain's rate, divided by the engine's in the round before.
        client_cores: cores of broker, sender and reader; 0 if they share the worker's.
        cpu: None if /proc is missing, and in files of older versions.
    """

    records: int
    rates: tuple[float, ...]
    records_per_s: float
    to_engine: float
    client_cores: int = 0
    cpu: CpuUse | None = None


class Load(_Figures):
    """Open-loop arrivals at one rate; latencies in ms, counted from each text's due time.

    A percentile is None if no record lies beyond it.
    """

    share: float
    rate: float
    records: int
    p50: float | None
    p99: float | None
    p999: float | None


class Latency(_Figures):
    """The time from a text's due time until a reader holds its result.

    Attributes:
        alone_ms: a single text on an idle worker, median.
        alone_overhead_ms: `alone_ms` without the bare forward pass.
        p99_to_window: p99 at half load, divided by the time that the engine, in the worker's
            number type, needs for one full window (`EnginePoint.window_s`).
    """

    loads: tuple[Load, ...]
    alone_ms: float
    alone_overhead_ms: float
    p99_to_window: float | None


class BenchResult(_Figures):
    """All figures of one run.

    Attributes:
        date: of the measurement, as 2026-11-27; empty in files of older versions.
        commit: of the source; empty outside the project's own benchmarks.
        cold_start_s: seconds from the start of the process until it is ready, model cached.
        resident_bytes: memory of the worker's process after draining a backlog; None if unknown.
    """

    format: Literal[1] = FORMAT
    version: str
    quick: bool
    delivery: Literal["at_least_once", "exactly_once"]
    commit_interval_s: float
    texts_from: str
    machine: MachineInfo
    model: ModelInfo
    engine: EngineResult
    end_to_end: EndToEnd
    latency: Latency
    cold_start_s: float
    resident_bytes: int | None
    date: str = ""
    commit: str = ""


def read(path: Path) -> BenchResult:
    """Return the figures in a file.

    Raises SettingsError, with the command that writes such a file, if it holds no figures.
    """
    hint = f"write it with: streamlabel bench --json {path}"
    try:
        return BenchResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"can't read {path} ({error.strerror}); {hint}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise SettingsError(
            f"{path} has no figures of this version's bench ({field}: {first['msg']}); {hint}"
        ) from None


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile: the smallest value that `share` of all do not exceed.

    Return None if no value lies beyond it: there are too few values to estimate that tail.
    """
    beyond = int(len(values) * (1 - share) + 1e-9)
    return sorted(values)[len(values) - beyond - 1] if beyond else None
