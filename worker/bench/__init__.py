"""The bench: how fast this machine labels your texts with your model.

Owns: all that `streamlabel bench` and `streamlabel plan` measure and compute.
Thread: the main thread; the engine is measured in a process of its own.
Must not import: kafka. No worker imports this package.

Modules::

    run         the order of a bench, from its first process to its table
    engine      the engine alone; `baselines` is what it is compared with
    rig         topics, one worker, a sender and a reader on a broker
    figures     the measurements, as they stand in the JSON file
    table, plot the measurements for people
    plan        settings, workers and partitions computed from the measurements
    arrivals, texts, machine    load, input and processor
"""
