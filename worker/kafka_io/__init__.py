"""The only rooms that import kafka: the way in, the way out, administration, history.

::

    connection   options for every client, and its first connection
    network      the client's connections, mended        (the client's IO thread)
    causes       why a client does not get in: signs in the library's words
    probe        why a client does not get in: the server is asked
    tls          certificates and keys, looked at first
    translation  the table of broker faults: exceptions become ours
    batches      records that the client would not read
    unpacking    compressed batches as streams
    portions     how much a poll gives out at once
    nulls        header values that it would not write
    polled       the client's records become ours
    source       the consumer                                    (poll thread)
    listener     its rebalances                    (the client's IO thread, revoke thread)
    membership   whether the group still counts us in            (any thread)
    positions    where to read on when the log has moved         (poll thread)
    watch        whether a topic still is the one that it was    (its client's thread)
    sink         outcomes out, at least once                     (publish thread)
    line, sent   their order; a batch of them                    (publish thread)
    transactions outcomes out, exactly once                      (publish thread)
    refusals     which record of a batch was refused, and then   (publish thread)
    publisher    one producer                                    (publish thread)
    rights       which ones the worker's user has, for `check`   (main thread)
    admin        topics, offsets, members                        (any thread)
    newest       the last records of a topic, for `check`     (main thread)
    history      whole topics, for the audit                     (main thread)
    samples      what the demo sends and reads                   (the demo's threads)

Imports core and the ground floor; never inference, runtime, cli or local.
"""
