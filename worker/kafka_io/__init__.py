"""The only rooms that import kafka: the way in, the way out, administration, history.

::

    connection   options for every client; the client's exceptions become ours
    source       the consumer and its rebalances                 (poll thread)
    sink         the producer, plain or transactional            (publish thread)
    admin        topics, offsets, members                        (any thread)
    history      whole topics, for the audit                     (main thread)
    samples      what the demo sends and reads                   (the demo's threads)

Imports core and the ground floor; never inference, runtime, cli or local.
"""
