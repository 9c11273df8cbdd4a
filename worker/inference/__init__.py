"""The model: from texts to every label's probability.

This file imports nothing, so that `worker.inference.bundled.prepare` and the command line start
fast; `loading` imports torch.

Owns: all code that needs torch or transformers, `bench` aside.
Thread: load, tokenise, infer, lane-*; each module states its thread.
Must not import: kafka_io, runtime, cli.

The modules::

    checkpoint      resolves --model to a folder of checked files
    names           checks the names of the labels
    weights         loads the weights, and rejects a model that lacks some
    skeleton        builds the model without weights, to check its size before it is loaded
    vocabulary      loads the tokenizer, and checks that it fits the model
    tokeniser       texts -> ids, sorted by length                     (tokenise thread)
    classifier      ids -> probabilities, by a forward pass            (infer thread)
    placement       device, number type and longest input of a model
    padding         the padded forward pass, for every architecture, and its unpadded variants
    packing         the packed forward pass, without padding, for some architectures
    attention       attention within each text of a joined row
    lanes           parts of a packed pass in parallel on a CPU        (lane-* threads)
    linears         linear layers in oneDNN's memory layout, for bfloat16 on a CPU
    int8            linear layers in 8-bit integers, and their calibration
    int8_choice     tries 8-bit integers, and falls back to the engine without them
    int8_gate       decides by texts which layers may compute in 8-bit integers
    openvino_pass   the pass by OpenVINO on a CPU, if that is installed
    openvino_model  the import of OpenVINO, and how a converted model runs
    openvino_inputs how texts become its inputs, joined or padded
    openvino_cache  keeps converted models on disk
    fastest         compares two engines on this machine
    shapes          few sizes of passes, for machines where each size costs memory
    extra_inputs    a tokenizer's outputs other than ids and mask
    attention_mode  resets BigBird's attention, which depends on earlier texts
    activation      chooses softmax or sigmoid
    engine          selects the fastest forward pass that is correct
    self_check      measures how far a pass differs from the reference
    tuning          warms up, and finds the best size of a pass
    loading         puts all of the above together                     (load thread)
    load_all        loads a worker's model, or several, and warms each up  (load thread)
    warm            loads and warms up a worker's model                (main thread)
    bundled/        a small sentiment model that needs no hub
"""
