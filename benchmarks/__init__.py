"""Measures the project itself: peers, scale-out, settings, goals; not part of the distribution.

Owns: the results in `benchmarks/results/`, and the tables and the chart made from them.
Thread: main.

Modules::

    bench           `streamlabel bench` on the reference architecture, beside the goals
    peers/          other programs that do the same work
    engines/        other engines with the same texts, in windows of the same sizes
    scale_out       1, 2, 4, 8 workers
    variants        the effect of a setting
    path            the cost of a record outside the model
    fidelity        the numerical error of each engine
    gpu/            engine, tokenizer and whole path on one GPU
    recorded        the form of the result files
    machines        the folder of each machine in `results/`
    reached         the figures that the goals are compared with
    goals, chart    goals beside the results, and a chart; `docs.performance` has the tables
    brokers, observers, fixed_service, random_model     parts that several of them use
"""
