"""Proofs: a command of the second day at its real size on Apache Kafka, judged by the audit.

::

    registry    the proofs: a function each, in the file of its name
    ground      what a proof stands on: topics, records, processes, the audit
    verdicts    decides from the audit whether the proof held
    NAME        one proof

`make prove ARGS="NAME --records 100000"`, or `python -m tests.proofs --list`.
"""
