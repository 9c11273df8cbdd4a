"""Loads the tokeniser and the classifier that the settings name, or fails with advice.

Needs the network only for a model on the hub.

Owns: the order of loading, and every check that needs weights.
Thread: load, before a record is read.
Must not import: kafka_io, runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from worker.clock import Clock, SystemClock
from worker.core.decisions.rules import bind
from worker.core.decisions.treatment import Treatment
from worker.core.model import Tokeniser
from worker.core.records import DEFAULT_FORWARD_TOKENS, ModelCard, ModelInput
from worker.errors import ModelUnchanged, RecordRejected, SettingsError
from worker.inference.attention_mode import turning_point
from worker.inference.classifier import Forward, TransformersClassifier
from worker.inference.decided import DecidedClassifier, LoadedClassifier
from worker.inference.described import Description, describe, loading_errors
from worker.inference.engine import Candidate, can_pack, choose
from worker.inference.extra_inputs import extra_inputs_of
from worker.inference.int8_choice import Int8, choose_int8
from worker.inference.int8_gate import rows_to_judge_by
from worker.inference.lanes import Lanes, side_by_side
from worker.inference.memory import Loading, require_memory
from worker.inference.openvino_pass import COPIES, OpenVinoForward, converter
from worker.inference.placement import (
    choose_device,
    choose_dtype,
    longest_input,
    require_room,
    tries_int8,
)
from worker.inference.preparing import preparation_of, prepared
from worker.inference.self_check import TEXTS, Rows, check_rows
from worker.inference.skeleton import stored_weights, weights_of
from worker.inference.threads import threads_of_model, use_threads
from worker.inference.tokeniser import TransformersTokeniser
from worker.inference.tuning import SIZES, WarmUpTexts, best_size
from worker.inference.weights import class_for, warn_of_unused, with_weights
from worker.logs import get_logger
from worker.settings import ModelSettings

# A tokenizer without a limit states one of 10**30 or the like.
_NO_LIMIT = 1_000_000


def load(
    settings: ModelSettings,
    forward_tokens: int | None = None,
    clock: Clock | None = None,
    processes: int = 1,
    in_use: int | None = None,
    *,
    replaces: bool = False,
    unless: ModelCard | None = None,
    treatment: Treatment = Treatment(),  # noqa: B008 - it is frozen
) -> tuple[Tokeniser, LoadedClassifier]:
    """Load the model that the settings name, and choose how it runs.

    Args:
        settings: name of the model, and how it runs.
        forward_tokens: most tokens in one forward pass; None leaves it to `warm_up` to find.
        clock: for `warm_up`; default: the machine's.
        processes: workers that load it under the same limits of CPU time and memory.
        in_use: bytes that this process uses, if it has a model that stays meanwhile.
        replaces: whether that model then makes room for this one.
        unless: a model that is not loaded again.
        treatment: of its texts and probabilities.

    Raises:
        ModelUnavailable: the model can't be loaded, or is not a classifier; the message says what
            to do.
        SettingsError: the settings contradict the model or this machine, or its memory is too
            small.
        ModelUnchanged: the model has the weights, labels, decision and recipe of `unless`.
    """
    with loading_errors(settings.name):
        return _load(
            settings,
            forward_tokens,
            clock or SystemClock(),
            processes,
            in_use,
            replaces=replaces,
            unless=unless,
            treatment=treatment,
        )


def _load(
    settings: ModelSettings,
    forward_tokens: int | None,
    clock: Clock,
    processes: int,
    in_use: int | None,
    *,
    replaces: bool,
    unless: ModelCard | None,
    treatment: Treatment,
) -> tuple[Tokeniser, LoadedClassifier]:
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    use_threads(settings.threads, processes)
    preparation = preparation_of(treatment.prepare)
    recipe = preparation.recipe if preparation else None
    described = describe(settings)
    decision, windows = treatment.decision, treatment.windows
    bound = bind(decision, described.labels, described.activation) if decision else None
    labels = bound.labels if bound else described.labels
    _refuse_same(described, (labels, bound, recipe), unless)
    checkpoint, config, tokenizer = described.checkpoint, described.config, described.tokenizer
    bare, ids_below = described.bare, described.ids_below
    with loading_errors(checkpoint.name):
        unused: set[str] = set()
        candidate = Candidate(
            load=lambda dtype: with_weights(checkpoint, config, dtype, unused).to(device),
            rows=lambda model: _known(
                check_rows(tokenizer, _longest(config, tokenizer, model), turning_point(config)),
                ids_below,
            ),
            extra_inputs=partial(extra_inputs_of, tokenizer),
            longest=partial(_longest, config, tokenizer),
            pad_id=described.pad_id,
            padding_side=tokenizer.padding_side,
            activation=described.activation,
            converter=converter(settings, checkpoint, dtype, device),
            divided=partial(side_by_side, wanted=settings.lanes),
        )
        int8 = None
        if tries_int8(settings.dtype, device):
            longest = _longest(config, tokenizer, bare or torch.nn.Module())
            judging = rows_to_judge_by(settings.calibration_texts, tokenizer, longest)
            int8 = Int8(_known(judging, ids_below), dtype, settings.dtype == "auto-int8")
        pack = can_pack(settings.engine, class_for(config).__name__, config)
        stored = stored_weights(checkpoint.weights)
        fallback = _fallback(settings, dtype)
        loads = Loading(
            weights=weights_of(bare),
            stored=stored,
            dtype=str(torch.float32 if int8 else dtype).removeprefix("torch."),
            compares=bool(pack or int8 or candidate.converter) or dtype is not fallback,
            stays=device == "cpu" and not (int8 or candidate.converter) and dtype is fallback,
            copies=COPIES if candidate.converter else 0,
        )
        memory = require_memory(checkpoint.name, loads, processes, in_use, replaces=replaces)
        if in_use:
            require_room(checkpoint.name, loads.size(loads.dtype), device)
        forward = _choose(candidate, settings, dtype, int8, pack=pack, clock=clock)
    warn_of_unused(unused, checkpoint.name)
    max_tokens = _tokens_of_a_text(settings.max_tokens, forward.longest, forward_tokens)
    card = ModelCard(
        name=checkpoint.name,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256(),
        labels=described.labels,
        max_tokens=max_tokens,
        engine=forward.name,
        dtype=forward.dtype,
        device=forward.device,
        pads=forward.pads,
        forward_tokens=forward_tokens or DEFAULT_FORWARD_TOKENS,
        activation=described.activation,
        windows=windows,
        recipe=recipe,
    )
    tokeniser = TransformersTokeniser(
        tokenizer,
        max_tokens=max_tokens,
        ids_below=ids_below,
        windows=windows,
        spelt=treatment.prepare.special_tokens == "text",
    )
    classifier = TransformersClassifier(
        forward,
        card,
        samples=WarmUpTexts(
            lambda text: tokeniser.tokenise([text])[0].take([0]), max_tokens, clock
        ),
        # Lanes choose the size of their parts themselves: the size of a pass does not matter.
        tune=None
        if forward_tokens or isinstance(forward, Lanes | OpenVinoForward)
        else _tuning(tokeniser, card, clock),
        memory=memory,
        threads=threads_of_model(),
    )
    decided = DecidedClassifier(classifier, bound) if bound else classifier
    return prepared(tokeniser, preparation), decided


def _refuse_same(
    described: Description, features: tuple[object, ...], other: ModelCard | None
) -> None:
    """Raise ModelUnchanged if a model with the same settings has the same labels and weights."""
    if other is None or features != (other.labels, other.decision, other.recipe):
        return
    if described.checkpoint.weights_sha256() == other.weights_sha256:
        raise ModelUnchanged(f"{other.name} is in use already, with the same settings and weights")


def _choose(
    candidate: Candidate,
    settings: ModelSettings,
    dtype: torch.dtype,
    int8: Int8 | None,
    *,
    pack: bool,
    clock: Clock,
) -> Forward:
    """Return the forward pass that the settings select; `int8` is None if it is not tried."""
    insist = settings.engine == "packed"
    plainly = partial(
        choose,
        candidate,
        pack=pack,
        insist=insist,
        dtype=dtype,
        fallback=_fallback(settings, dtype),
        clock=clock,
    )
    if int8 is None:
        return plainly()
    return choose_int8(candidate, int8, plainly, pack=pack, insist=insist, clock=clock)


def _fallback(settings: ModelSettings, dtype: torch.dtype) -> torch.dtype:
    return dtype if settings.dtype in ("float32", "bfloat16") else torch.float32


def _tuning(
    tokeniser: TransformersTokeniser, card: ModelCard, clock: Clock
) -> Callable[[Callable[[ModelInput], object]], int]:
    rows: list[Sequence[int]] = []
    for text in TEXTS:
        with suppress(RecordRejected):  # the text has a token without an embedding
            rows.append(tokeniser.tokenise([text])[0].ids[0])
    return partial(best_size, rows=rows, sizes=SIZES[card.device], clock=clock, pads=card.pads)


def _known(rows: Rows, ids_below: int | None) -> Rows:
    """Return the texts whose tokens all have an embedding."""
    return [ids for ids in rows if ids_below is None or max(ids) < ids_below]


def _longest(config: Any, tokenizer: Any, model: torch.nn.Module) -> int | None:
    """Return the tokens of the longest text that the model takes, or None if there is no limit."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    stated = tokenizer.model_max_length  # may be 512.0 in JSON
    sane = int(stated) if 0 < stated < _NO_LIMIT else None
    limits = [limit for limit in (sane, longest_input(model, positions)) if limit]
    return min(limits, default=None)


def _tokens_of_a_text(wanted: int | None, longest: int | None, forward_tokens: int | None) -> int:
    """Return the most tokens of a text: as set, or as the model or a forward pass takes.

    Raises:
        SettingsError: such a text would not fit a forward pass.
    """
    max_tokens = _max_tokens(wanted, longest) or forward_tokens or DEFAULT_FORWARD_TOKENS
    if forward_tokens and max_tokens > forward_tokens:
        raise SettingsError(
            f"batch.forward_tokens ({forward_tokens}) is less than the {max_tokens} tokens that "
            "the model takes: the longest text would not fit a forward pass; raise it, or set "
            "model.max_tokens"
        )
    return max_tokens


def _max_tokens(wanted: int | None, longest: int | None) -> int | None:
    if longest and wanted and wanted > longest:
        get_logger(__name__).warning(
            "model.max_tokens exceeds the model's limit: using the limit",
            wanted=wanted,
            limit=longest,
        )
        return longest
    return wanted or longest
