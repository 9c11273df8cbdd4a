"""Chaos: workers, brokers and wires are broken by a plan, and the audit judges what became of it.

::

    plan      what goes wrong and when, drawn from a seed
    arena     brokers, wires (proxy), topics, the producer
    fleet     the workers' processes (worker), their supervisor
    conduct   one run
    bugs      known bugs, to see the suite catch them (planted)

`make chaos SEED=7 FAULTS=30 DELIVERY=exactly_once BROKER=apache MODEL=tiny`
"""
