"""Merges the encoder and the adapter into one ordinary checkpoint, without peft.

Owns: the arithmetic of the merge, and the files of the merged checkpoint.
Thread: main or load, before a record is read.
Must not import: kafka, peft.
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

    Args:
        base: the encoder's folder.
        adapter: a folder in PEFT's format.
        target: the folder to write to.

    Raises:
        ModelUnavailable: the adapter does not fit this encoder.
        OSError: a file can't be read or written.
    """
    settings = _json(adapter / "adapter_config.json")
    unsupported = [name for name in _UNSUPPORTED if settings.get(name)]
    if unsupported or settings["peft_type"] != "LORA":
        raise ModelUnavailable(
            f"{adapter} can't be merged: only plain LoRA is supported, and it has peft_type "
            f"{settings['peft_type']} with the options {unsupported}"
        )
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
    """Return the classifier's weights in float32: W + scale * B @ A for each adapted linear layer.

    Tensors that the adapter stores whole (biases, layer norms, pooler, head) replace the encoder's.

    Raises:
        ModelUnavailable: a tensor of the adapter has no place in the model.
    """
    weights = {f"bert.{name}": tensor for name, tensor in base.items()}
    weights.pop("bert.embeddings.position_ids", None)  # a buffer, not a weight
    known = {*weights, *_HEAD}
    plain = {name.removeprefix("base_model.model."): tensor for name, tensor in adapter.items()}
    _refuse_unknown(plain, known)
    for name, tensor in plain.items():
        if name.endswith(".lora_B.weight"):
            down = plain[name.replace(".lora_B.", ".lora_A.")]
            update = scale * (tensor.float() @ down.float())
            weights[_target(name)] = weights[_target(name)] + update
        elif not name.endswith(".lora_A.weight"):
            weights[_target(name)] = tensor.float()
    return weights


def _target(name: str) -> str:
    """Return the name of the model's tensor that a tensor of the adapter changes."""
    for part in (".base_layer.", ".lora_A.", ".lora_B."):
        name = name.replace(part, ".")
    return name


def _refuse_unknown(names: Iterable[str], known: set[str]) -> None:
    names = set(names)
    pairs = {".lora_A.": ".lora_B.", ".lora_B.": ".lora_A."}
    unknown = {name for name in names if _target(name) not in known}
    for half, other in pairs.items():
        unknown |= {n for n in names if half in n and n.replace(half, other) not in names}
    unknown |= {f"{name} (missing)" for name in _HEAD if name not in names}
    if unknown:
        raise ModelUnavailable(f"the adapter does not fit the encoder: {sorted(unknown)}")


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
    # The package's file pads and cuts every text to 128 tokens; the caller decides that here.
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
