"""The model: from texts to every label's probability.

The only room that imports torch, transformers and huggingface_hub. Never imports kafka_io, runtime,
cli or local. This file imports nothing, so that `worker.inference.bundled.prepare` and the command
line stay cheap; torch comes in with `loading`::

    checkpoint      --model, whatever it names, as one checked folder of files
    tokeniser       texts -> ModelInputs under a token budget          (tokenise thread)
    torch_engine    the plain engine: pad, forward pass, probabilities (infer thread)
    loading         all of the above, put together at start            (main thread)
    bundled/        the small model that works with no hub
"""
