"""The model: from texts to every label's probability.

The only room that imports torch, transformers and huggingface_hub. Never imports kafka_io, runtime,
cli or local. This file imports nothing, so that `worker.inference.bundled.prepare` and the command
line stay cheap; torch comes in with `loading`::

    checkpoint      --model, whatever it names, as one checked folder of files
    names           the labels, checked
    weights         a model with its weights, and nothing made up
    skeleton        a model without weights, to measure it before it is built
    vocabulary      the tokenizer as transformers loads it, and whether it fits the model
    tokeniser       texts -> ids, sorted by length                     (tokenise thread)
    torch_engine    forward pass, probabilities, faults told apart     (infer thread)
    padding         the plain forward pass, for every architecture; without padding for some
    packing         the forward pass without padding, for some
    attention       attention within each text of a joined row
    lanes           a forward pass in parts, side by side on a CPU     (a thread each, while it runs)
    linears         linear layers as oneDNN's kernels read them, for bfloat16 on a CPU
    shapes          few sizes of passes, where each one costs memory
    frames          what a tokenizer makes beside ids and mask
    history         a model forgets which texts it has seen
    activation      what makes probabilities of a model's outputs
    engine          which forward pass runs: the fastest that is right (at start)
    self_check      how far a pass is from each text alone
    tuning          what a warm-up runs, and how many tokens a pass had best have
    fidelity        a program: each engine against transformers, text by text
    loading         all of the above, put together at start            (a thread that ends)
    bundled/        the small model that works with no hub
"""
