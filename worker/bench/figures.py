"""What `streamlabel bench` measured, as it stands in its JSON file, and reading it back.

Owns the form of that file; `plan`, the plot, the table and the README's figures read it here.
Pure but for `read`. Must not import: kafka, torch.
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


class Machine(_Figures):
    """Where it was measured; `features` are those of the processor that decide the arithmetic."""

    cpu: str
    cores: int
    features: tuple[str, ...]
    python: str
    torch: str
    broker: str


class Model(_Figures):
    """What ran; `tokens_per_text` is the mean over the texts, special tokens included."""

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
        forward_tokens: most tokens in one forward pass (`batch.forward_tokens`).
        window: texts that were sorted and cut together (`batch.max_records`).
        window_s: seconds that the engine takes for one full window.
    """

    forward_tokens: int
    window: int
    texts_per_s: float
    tokens_per_s: float
    window_s: float


class Roofline(_Figures):
    """Matrix products at the model's own shapes, and what share of their speed the engine reaches.

    FLOP of a text of T tokens: 2*T*(weights of the linears that see each token)
    + 2*(weights of those that see the text once) + 4*T*T*hidden*layers for attention.
    """

    gemm_flop_per_s: float
    engine_flop_per_s: float
    flop_per_token: float
    share: float
    way: str


class Engine(_Figures):
    """The engine with no broker; every figure is a median over `rounds`, interleaved.

    Attributes:
        configured: at the settings in force.
        sweep: at other budgets, the smallest first.
        pipeline_texts_per_s: transformers' `pipeline()`, float32, 32 texts in arrival order.
        to_pipeline: the engine's texts/s at its settings : the pipeline's.
        tokenise_texts_per_s: the tokeniser alone, which runs beside the model in a worker.
        roofline: None where there are no matrix products of the model's type to compare with.
        one_text_s: seconds for a forward pass of one text that comes alone, a while after the last.
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


class EndToEnd(_Figures):
    """A backlog drained by one worker; the rate is the median of `rates`, records a second."""

    records: int
    rates: tuple[float, ...]
    records_per_s: float
    to_engine: float


class Load(_Figures):
    """Open-loop arrivals at one rate; latencies in ms, from when a text was due to be sent.

    A percentile is None where fewer records lie beyond it than one.
    """

    share: float
    rate: float
    records: int
    p50: float | None
    p99: float | None
    p999: float | None


class Latency(_Figures):
    """How long a text takes from its due time until a reader holds its result.

    Attributes:
        alone_ms: one text on an idle worker, median.
        alone_overhead_ms: of that, all but the bare forward pass.
        p99_to_window: p99 at half load : the time of one full window in the engine.
    """

    loads: tuple[Load, ...]
    alone_ms: float
    alone_overhead_ms: float
    p99_to_window: float | None


class Bench(_Figures):
    """One run.

    Attributes:
        cold_start_s: from the process's start until it is ready, with the model in its cache.
        resident_bytes: of the worker's process after a drained backlog; None where unknown.
    """

    format: Literal[1] = FORMAT
    version: str
    quick: bool
    delivery: Literal["at_least_once", "exactly_once"]
    commit_interval_s: float
    texts_from: str
    machine: Machine
    model: Model
    engine: Engine
    end_to_end: EndToEnd
    latency: Latency
    cold_start_s: float
    resident_bytes: int | None


def read(path: Path) -> Bench:
    """Raises SettingsError, with the command that makes such a file, where it is none."""
    hint = f"make one: streamlabel bench --json {path}"
    try:
        return Bench.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"can't read {path} ({error.strerror}); {hint}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SettingsError(
            f"{path} holds no figures of this version's bench ({where}: {first['msg']}); {hint}"
        ) from None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest rank: the smallest value that at least `share` of all do not exceed.

    None where not one of the values lies beyond it: too few to say anything of that tail.
    """
    beyond = int(len(values) * (1 - share) + 1e-9)
    return sorted(values)[len(values) - beyond - 1] if beyond else None
