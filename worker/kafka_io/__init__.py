"""Everything of Kafka: consumer, producers, administration, whole topics.

Owns: every import of kafka-python.
Thread: see each module.
Must not import: inference, runtime, http, pool, demo, bench, cli.

::

    connection      options of every client, and its first connection
    network         fixes to the library's connections                  (the client's IO thread)
    internals       the library's private names, with reasons
    causes          why a connection fails, from the library's messages
    probe           why a connection fails, by asking the server
    tls             certificates, keys and ciphers of a connection
    sign_in         SASL: options, preparation and refusals of each mechanism
    kerberos        is there a ticket for GSSAPI
    oauth           sign-in by OAUTHBEARER                              (IO thread)
    tokens          its tokens, renewed ahead                           (IO thread, token thread)
    token_file      reads a token                                       (IO thread)
    token_endpoint  asks for a token over HTTP
    msk             tokens of AWS_MSK_IAM
    claims          what a token says of itself
    translation     the library's exceptions -> the worker's errors
    record_batch    batches that the library can't read
    decompression   compressed batches as streams
    bounded_poll    polls bounded by bytes
    null_headers    header values that the library can't write
    conversion      the library's records and offsets <-> the worker's
    source          the consumer                                        (poll thread)
    listener        its rebalances                                      (IO thread, revoke thread)
    membership      does the group still count this worker as a member  (any thread)
    positions       positions that the log or the group lacks           (poll thread)
    bounded_partitions  a range of each partition                   (poll thread)
    stable_offsets  last stable offsets, from fetch responses           (poll thread)
    topic_watch     deleted and recreated topics                        (the client's thread)
    topic_notes     offsets of a deleted topic of the same name         (IO and poll threads)
    sink            publishing, at least once                           (publish thread)
    send_queue      the order of sending                                (publish thread)
    sent_batch      a batch and its acknowledgements                    (publish thread)
    transactions    publishing, exactly once                            (publish thread)
    group_offsets   the group's committed offsets, without joining it   (publish thread)
    refusals        records that the broker refuses                     (publish thread)
    publisher       one producer                                        (publish thread)
    rights          the user's permissions, for `check`                 (main thread)
    admin           topics, offsets, group members                      (any thread)
    places          offsets of times, ends and groups                   (any thread)
    group_state     where a group is, for `offsets`                     (main thread)
    newest          the latest records of a topic, for `check`          (main thread)
    dead_letter_source  the consumer of a replay                    (poll thread)
    dead_letter_topic   reads dead letters                          (main thread)
    reader          whole topics, for the audit                         (main thread)
    audit           compares the topics                                 (main thread)
    samples         producer and reader of `demo` and `bench`           (their threads)
"""
