"""The bench: measures how fast this machine labels your texts with your model.

Owns: everything that `streamlabel bench` and `streamlabel plan` measure and compute.
Thread: main; the engine is measured in a process of its own.
Must not import: kafka. No worker imports this package.

Modules::

    run         the order of a bench, from its first process to its table
    engine      the engine alone; `baselines` has the programs that it is compared with
    rig         topics, one worker, a sender and a reader on a broker
    figures     the measurements, in the form of the JSON file
    table, plot the measurements as a table and as a chart
    plan        settings, workers and partitions computed from the measurements
    arrivals, texts, machine    the load, the input and the processor
"""
