"""Turns the encoder and the adapter into one ordinary checkpoint, without peft.

Owns: the arithmetic of the merge and the files of the merged checkpoint. Runs on: whichever thread
prepares the model, before the worker starts. Must not import: kafka, peft.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save
from torch import Tensor

from worker.errors import ModelUnavailable
from worker.inference.bundled import encoder

ID2LABEL: Final = {0: "NEGATIVE", 1: "POSITIVE"}
LABEL2ID: Final = {label: number for number, label in ID2LABEL.items()}

_HEAD: Final = ("classifier.weight", "classifier.bias")
# PEFT's options that would change the arithmetic below.
_UNSUPPORTED: Final = ("use_dora", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern")


def write_checkpoint(base: Path, adapter: Path, target: Path) -> None:
    """Write config, float32 weights and tokenizer into `target`, an existing folder.

    `base` is the encoder's folder, `adapter` one in PEFT's format. Raises ModelUnavailable where
    the adapter is not one for this encoder, OSError where a file can't be read or written.
    """
    settings = _json(adapter / "adapter_config.json")
    unsupported = [name for name in _UNSUPPORTED if settings.get(name)]
    if unsupported or settings["peft_type"] != "LORA":
        raise ModelUnavailable(f"{adapter} can't be merged: it is no plain LoRA {unsupported}")
    weights = merged(
        load_file(base / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
        scale=settings["lora_alpha"] / settings["r"],
    )
    # Not save_file: it makes files that only their owner may read.
    (target / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    _write_json(target / "config.json", _config(_json(base / "config.json")))
    _write_tokenizer(base, target)


def merged(
    base: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """Return the classifier's weights in float32: W + scale * B @ A for each adapted linear.

    Tensors that the adapter holds whole (biases, layer norms, pooler, head) replace the encoder's.
    Raises ModelUnavailable where a tensor of the adapter has no place in the model.
    """
    weights = {f"bert.{name}": tensor for name, tensor in base.items()}
    weights.pop("bert.embeddings.position_ids", None)  # a buffer, not a weight
    known = {*weights, *_HEAD}
    plain = {name.removeprefix("base_model.model."): tensor for name, tensor in adapter.items()}
    _refuse_strangers(plain, known)
    for name, tensor in plain.items():
        if name.endswith(".lora_B.weight"):
            down = plain[name.replace(".lora_B.", ".lora_A.")]
            update = scale * (tensor.float() @ down.float())
            weights[_place(name)] = weights[_place(name)] + update
        elif not name.endswith(".lora_A.weight"):
            weights[_place(name)] = tensor.float()
    return weights


def _place(name: str) -> str:
    """Which of the model's tensors one of the adapter's belongs to."""
    for part in (".base_layer.", ".lora_A.", ".lora_B."):
        name = name.replace(part, ".")
    return name


def _refuse_strangers(names: Iterable[str], known: set[str]) -> None:
    names = set(names)
    pairs = {".lora_A.": ".lora_B.", ".lora_B.": ".lora_A."}
    strangers = {name for name in names if _place(name) not in known}
    for one, other in pairs.items():
        strangers |= {n for n in names if one in n and n.replace(one, other) not in names}
    strangers |= {f"{name} (missing)" for name in _HEAD if name not in names}
    if strangers:
        raise ModelUnavailable(f"the adapter does not fit the encoder: {sorted(strangers)}")


def _config(base: Mapping[str, Any]) -> dict[str, Any]:
    dropped = ("_name_or_path", "transformers_version", "gradient_checkpointing")
    return {name: value for name, value in base.items() if name not in dropped} | {
        "architectures": ["BertForSequenceClassification"],
        "dtype": "float32",
        "id2label": {str(number): label for number, label in ID2LABEL.items()},
        "label2id": LABEL2ID,
        "problem_type": "single_label_classification",
    }


def _write_tokenizer(base: Path, target: Path) -> None:
    for name in encoder.TOKENIZER_FILES:
        shutil.copyfile(base / name, target / name)
    # The package's file pads every text to 128 tokens and cuts it there; the caller decides.
    tokenizer = _json(base / "tokenizer.json") | {"padding": None, "truncation": None}
    _write_json(target / "tokenizer.json", tokenizer)
    settings = _json(base / "tokenizer_config.json")
    settings.pop("name_or_path", None)
    settings["model_max_length"] = _json(base / "config.json")["max_position_embeddings"]
    _write_json(target / "tokenizer_config.json", settings)


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
