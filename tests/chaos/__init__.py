"""Chaos tests: break workers, brokers and connections by a plan, and judge the result by the audit.

::

    plan      the faults and their times, drawn from a seed
    arena     brokers, connections (proxy), topics, the producer
    fleet     the processes of the workers (worker), and their supervisor
    conduct   one run
    bugs      known bugs that the suite must catch (planted)

`make chaos SEED=7 FAULTS=30 DELIVERY=exactly_once BROKER=apache MODEL=tiny`
"""
