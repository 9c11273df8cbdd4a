"""Loads a worker's model, warms it up, and logs its facts.

Owns: the load thread.
Thread: main, which waits for the load thread.
Must not import: kafka_io, runtime.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from worker.core.model import Classifier, Tokeniser
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.settings import Settings

log = get_logger(__name__)


def load_model(settings: Settings, metrics: Metrics) -> tuple[Tokeniser, Classifier]:
    """Return a tokenizer and a model that have been warmed up.

    Raises:
        StreamlabelError: the model can't be loaded; the message says what to do.
    """
    # Importing torch takes seconds, so the topics are checked before.
    from worker.inference.loading import load  # noqa: PLC0415

    log.info("loading model", model=settings.model.name)

    def load_and_warm_up() -> tuple[Tokeniser, Classifier]:
        tokeniser, classifier = load(settings.model, settings.batch.forward_tokens)
        classifier.warm_up()
        return tokeniser, classifier

    # On a thread that ends, because OpenMP's threads belong to the thread that they compute for,
    # and end with it. If OpenMP has more threads than cores, those of the infer thread sleep at the
    # end of each step instead of spinning (GOMP_SPINCOUNT in libgomp's manual): up to twice the
    # time.
    with ThreadPoolExecutor(1, "load") as executor:
        tokeniser, classifier = executor.submit(load_and_warm_up).result()
    card = classifier.card
    facts = {
        "model": card.name,
        "revision": card.revision,
        "engine": card.engine,
        "dtype": card.dtype,
        "device": card.device,
    }
    metrics.model.info(facts)
    log.info(
        "model ready",
        labels=list(card.labels),
        max_tokens=card.max_tokens,
        forward_tokens=card.forward_tokens,
        **facts,
    )
    return tokeniser, classifier
