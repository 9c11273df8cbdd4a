"""Simulated histories: the worker's real parts on one thread, against a model of Kafka.

::

    broker    topics, producers, transactions: Kafka's rules without a network
    group     the consumer group: members, generations, cooperative rebalances, offsets
    world     the clock, the seed, the order in which things happen
    source    the consumer's side, for `runtime`
    producer  the producer's side, for the sinks
    process   one worker, built of the project's own parts, and its pipeline in steps
    history   one history: its plan, its faults, its verdict
    bugs      bugs that are planted, and the first seed that finds each

`python -m tests.simulation --help` runs them.
"""
