"""The same texts through our engine and others, side by side in one run.

Modules::

    __main__     the command: installs, takes turns, writes engines.json
    contenders   which engines and number types take part
    children     a contender's process, and the messages to it
    turns        rounds of new texts, in shuffled turns
    compare      probabilities against float32
    figures      the form of engines.json
    table        the figures as Markdown
    serve        the contender's side of the messages
    ours, openvino_engine, onnx_engine, plain    the engines, each in a process of its own
"""
