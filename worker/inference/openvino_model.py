"""A model converted to OpenVINO, and how it runs on a CPU.

OpenVINO comes with the extra `openvino`, so this module imports it on first use.

Owns: the import of openvino, and all settings of its CPU plugin.
Thread: infer, which waits for OpenVINO's own threads; built on the load thread.
Must not import: transformers.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Inputs = Mapping[str, NDArray[Any]]

# On import and on each conversion, OpenVINO would report to its maker through this package, and
# make a file in the home directory. It runs without the package.
_REPORTS = "openvino_telemetry"
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_DTYPES = {"f32": "float32", "bf16": "bfloat16"}


class CannotConvert(Exception):
    """The model can't be converted; the message says why."""


def installed() -> bool:
    """Return whether the extra `openvino` is installed."""
    return find_spec("openvino") is not None


def openvino() -> Any:
    """Return the library, which sends no reports when it is imported here."""
    if "openvino" not in sys.modules:
        absent = dict.fromkeys([_REPORTS]) if _REPORTS not in sys.modules else {}
        sys.modules.update(absent)  # type: ignore[arg-type]  # None: importing it fails
        try:
            import openvino  # noqa: F401, PLC0415
        finally:
            for name in absent:
                del sys.modules[name]
    return sys.modules["openvino"]


def convert(model: nn.Module, example: Mapping[str, Tensor]) -> Any:
    """Return OpenVINO's model of a torch module that takes tensors by name and returns logits.

    Raises:
        CannotConvert: tracing fails, or OpenVINO lacks an operation.
    """
    library = openvino()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the self-check finds what tracing has fixed
            converted = library.convert_model(model, example_input=dict(example))
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise CannotConvert(f"{type(error).__name__}: {reason}") from error
    for name, port in zip(example, converted.inputs, strict=True):
        port.get_tensor().set_names({name})
    return converted


class Compiled:
    """A converted model on the CPU: for one pass by all threads, and for several side by side.

    The two have their own copies of the weights. A pass by all threads is the fastest for a short
    text; several passes side by side do not wait for each other.

    Args:
        model: OpenVINO's model.
        dtype: number type to compute in; `self.dtype` is the one that the processor gets.
        threads: threads of all passes together.
        streams: passes that run side by side.

    Raises:
        RuntimeError: OpenVINO can't compile the model.
    """

    def __init__(self, model: Any, dtype: torch.dtype, *, threads: int, streams: int) -> None:
        self.streams = min(streams, threads)
        self._model = model
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            # The workers of a machine would all bind their threads to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._one = options | {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        self._many = options | {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.streams}
        self._alone: Any = None
        self._queue: Any = None
        precision = self._compile().get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.dtype = _DTYPES.get(precision, precision)

    def _compile(self) -> Any:
        core = openvino().Core()
        whole = core.compile_model(self._model, "CPU", self._one)
        parts = core.compile_model(self._model, "CPU", self._many) if self.streams > 1 else whole
        self._alone = whole.create_infer_request()
        self._queue = openvino().AsyncInferQueue(parts, self.streams)
        return whole

    def run(self, passes: Sequence[Inputs]) -> list[Tensor]:
        """Return the logits [texts, labels] of each pass, float32.

        Raises:
            RuntimeError: OpenVINO fails.
        """
        if self._queue is None:
            self._compile()
        try:
            if len(passes) > 1:
                return self._run_side_by_side(passes)
            self._alone.infer(passes[0], share_inputs=True)
            return [_logits(self._alone)]
        except BaseException:
            # A pass that fails leaves shapes behind that make the next one fail.
            self._alone = self._queue = None
            raise

    def _run_side_by_side(self, passes: Sequence[Inputs]) -> list[Tensor]:
        results: dict[int, Tensor] = {}

        def keep(request: Any, number: int) -> None:
            results[number] = _logits(request)

        self._queue.set_callback(keep)
        for number, inputs in enumerate(passes):
            self._queue.start_async(inputs, number, share_inputs=True)
        self._queue.wait_all()
        return [results[number] for number in range(len(passes))]


def _logits(request: Any) -> Tensor:
    """Copy the output, whose memory belongs to the request."""
    return torch.from_numpy(np.array(request.get_output_tensor(0).data, dtype=np.float32))
