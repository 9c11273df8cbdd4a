"""The bench: measures how fast this machine labels your texts with your model.

Owns: everything that `streamlabel bench` and `streamlabel plan` measure and compute.
Thread: main; the engine is measured in a process of its own.
Must not import: kafka. No worker imports this package.

Modules::

    run             the order of a bench, from its first process to its table
    engine          the engine alone, in a process of its own (`engine_process` runs it)
    measured        one model's forward passes, and their times in each round
    baselines       the programs that the engine is compared with
    primitives      the number of oneDNN primitives that a computation makes
    rig             topics, one worker, a sender and a reader on a broker
    load_test       throughput and latency of that worker
    drains          backlogs, drained in turns with rounds of the engine
    usage, pinning  CPU time of processes, and cores of their own
    figures         the measurements, in the form of the JSON file
    table, plot     the measurements as a table and as a chart
    plan            settings, workers and partitions computed from the measurements
    arrivals, texts, machine    the load, the input and the processor
"""
