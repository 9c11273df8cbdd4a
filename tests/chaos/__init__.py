"""Chaos tests: break workers, brokers and connections by a plan, and judge the result by the audit.

::

    plan      the faults and their times, drawn from a seed
    cluster   brokers and a schema registry, with connections (proxy) that can be cut
    security  certificates and passwords, in runs whose workers sign in
    arena     topics, the producer and its values (values), in JSON or Avro
    fleet     the processes of the workers (worker), and their supervisor
    faults    begins and ends each fault
    conduct   one run
    bugs      known bugs that the suite must catch (planted)

`make chaos SEED=7 FAULTS=30 DELIVERY=exactly_once BROKER=apache MODEL=tiny FORMAT=avro DTYPE=int8
SECURITY=sasl_ssl`
"""
