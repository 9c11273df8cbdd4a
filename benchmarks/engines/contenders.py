"""The engines that are compared, in every number type that the machine computes in.

Owns: the list.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from typing import Final, NamedTuple, get_args

from worker.settings import ModelSettings

OURS: Final = "streamlabel"
OPENVINO: Final = "OpenVINO"
ONNX: Final = "ONNX Runtime"
PLAIN: Final = "`pipeline()`"

# Processors without one of these emulate bfloat16, at a fraction of float32's speed.
_NATIVE_BFLOAT16: Final = {"amx_bf16", "avx512_bf16", "bf16"}


class Contender(NamedTuple):
    """An engine in a number type.

    Attributes:
        engine: its name in the results.
        dtype: the number type that it is asked for.
        module: the module of this package that runs it.
        variant: a way to run it, if there are several.
        windows: True if it works in windows; `pipeline()` has batches of its own.
    """

    engine: str
    dtype: str
    module: str
    variant: str = ""
    windows: bool = True

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.engine, self.dtype, self.variant)))

    @property
    def ours(self) -> bool:
        return self.engine == OURS


# float32, each text alone: the reference for the probabilities of all others.
REFERENCE: Final = Contender(PLAIN, "float32", "plain", "text by text", windows=False)

_ALL: Final = (
    REFERENCE,
    Contender(PLAIN, "float32", "plain", "batches of 32", windows=False),
    *(Contender(OURS, dtype, "ours") for dtype in ("float32", "bfloat16", "int8")),
    *(Contender(OPENVINO, dtype, "openvino_engine") for dtype in ("float32", "bfloat16", "int8")),
    *(Contender(ONNX, dtype, "onnx_engine") for dtype in ("float32", "int8")),
)


def contenders(features: tuple[str, ...]) -> list[Contender]:
    """Return the contenders for a processor with these features.

    Ours take part in the number types that `model.dtype` accepts.
    """
    accepted = get_args(ModelSettings.model_fields["dtype"].annotation)
    native = not _NATIVE_BFLOAT16.isdisjoint(features)
    return [
        contender
        for contender in _ALL
        if (native or contender.dtype != "bfloat16")
        and (not contender.ours or contender.dtype in accepted)
    ]
