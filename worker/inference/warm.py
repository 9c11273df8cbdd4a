"""Loads the model of a worker, warms it up, and says in the log which one it is.

Owns: the thread that loads.
Thread: called on the main thread.
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
    """Return a tokenizer and a model that have labelled texts already.

    Raises:
        StreamlabelError: the model can't be loaded; the message says what to do.
    """
    # Importing torch takes seconds; the topics have been looked at before.
    from worker.inference.loading import load  # noqa: PLC0415

    log.info("loading the model", model=settings.model.name)

    def ready() -> tuple[Tokeniser, Classifier]:
        tokeniser, classifier = load(settings.model, settings.batch.forward_tokens)
        classifier.warm_up()
        return tokeniser, classifier

    # On a thread that ends, and OpenMP's threads with it. They belong to the thread that they
    # compute for. Where there are more of them than cores, those of the infer thread sleep at each
    # step's end instead of spinning (GOMP_SPINCOUNT in libgomp's manual): up to twice the time.
    with ThreadPoolExecutor(1, "load") as loading:
        tokeniser, classifier = loading.submit(ready).result()
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
