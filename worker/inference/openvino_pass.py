"""The forward pass by OpenVINO, on a CPU: converted from the torch model, kept on disk, compiled.

Owns: the setting `model.engine = "openvino"`, and when it applies.
Thread: infer; built on the load thread.
Must not import: openvino.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import transformers
from torch import Tensor, nn

from worker.errors import SettingsError
from worker.inference.checkpoint import Checkpoint
from worker.inference.extra_inputs import ExtraInput
from worker.inference.openvino_cache import ConvertedModels
from worker.inference.openvino_inputs import Encoding, Joined, Padded
from worker.inference.openvino_model import PRECISIONS, Compiled, installed, openvino
from worker.inference.packing import CannotPack
from worker.inference.padding import Side
from worker.inference.threads import threads_of_model
from worker.settings import ModelSettings

Rows = Sequence[Sequence[int]]
ExtraInputs = Mapping[str, ExtraInput]

# As many as lanes. Each keeps memory for the results between layers.
_MOST_STREAMS = 16
# Of the weights, see `Compiled`.
COPIES = 2


class OpenVinoForward:
    """Runs texts through a model of OpenVINO, in parts side by side.

    Args:
        compiled: the model.
        encoding: makes its inputs.
        longest: tokens of the longest text that the model takes; None if there is no limit.
    """

    name = "openvino"
    device = "cpu"
    parallel = False  # it divides a pass itself

    def __init__(self, compiled: Compiled, encoding: Encoding, longest: int | None) -> None:
        self.dtype, self.pads, self.longest = compiled.dtype, encoding.pads, longest
        self._compiled, self._encoding = compiled, encoding

    def __call__(self, rows: Rows) -> Tensor:
        """Return the logits [texts, labels] of each text's ids."""
        parts = list(self._encoding.parts(rows, self._compiled.streams))
        results = self._compiled.run([self._encoding.inputs(part) for part in parts])
        pairs = zip(results, parts, strict=True)
        return torch.cat([logits[: len(part)] for logits, part in pairs])


@dataclass(frozen=True, slots=True)
class Converter:
    """Makes the pass by OpenVINO for one checkpoint.

    Attributes:
        insists: the settings name this engine, so that no other is compared with it.
        dtype: number type to compute in.
        streams: parts of a pass that run side by side.
        models: keeps the converted models.
        checkpoint: where the torch model is from.
    """

    insists: bool
    dtype: torch.dtype
    streams: int
    models: ConvertedModels
    checkpoint: Checkpoint

    def forward(
        self,
        model: nn.Module,
        *,
        extra_inputs: ExtraInputs,
        longest: int | None,
        pad_id: int | None,
        side: Side,
    ) -> OpenVinoForward:
        """Return the pass of a float32 model, which is left as it was.

        Raises:
            CannotConvert: OpenVINO can't run it.
            RuntimeError: OpenVINO fails.
        """
        encoding: Encoding
        try:
            encoding = Joined(model, extra_inputs)
        except CannotPack:
            encoding = Padded(model, extra_inputs, pad_id=pad_id, side=side, longest=longest)
        identity = {
            "config": self.checkpoint.config,
            "inputs": [type(encoding).__name__, *sorted(extra_inputs), pad_id],
            "versions": [openvino().__version__, torch.__version__, transformers.__version__],
        }
        weights = self.checkpoint.weights_sha256()
        converted = self.models.get(weights, identity, partial(encoding.convert, model))
        compiled = Compiled(converted, self.dtype, threads=threads_of_model(), streams=self.streams)
        return OpenVinoForward(compiled, encoding, longest)


def converter(
    settings: ModelSettings, checkpoint: Checkpoint, dtype: torch.dtype, device: str
) -> Converter | None:
    """Return what makes the pass by OpenVINO, or None if the settings or the machine exclude it.

    Raises:
        SettingsError: `openvino` is set, and it is not installed, or the model is on a GPU.
    """
    insists = settings.engine == "openvino"
    if settings.engine not in ("auto", "openvino"):
        return None
    if insists and not installed():
        raise SettingsError(
            "model.engine = 'openvino' needs a package that is not installed: run pip install "
            "'streamlabel[openvino]', or use auto"
        )
    if insists and device != "cpu":
        raise SettingsError(
            f"model.engine = 'openvino' computes on a CPU, but the model is on {device}: set "
            "model.device = 'cpu', or use auto"
        )
    if device != "cpu" or dtype not in PRECISIONS or not installed():
        return None
    return Converter(
        insists,
        dtype,
        streams=settings.lanes or min(threads_of_model(), _MOST_STREAMS),
        models=ConvertedModels(settings.cache_dir.expanduser()),
        checkpoint=checkpoint,
    )
