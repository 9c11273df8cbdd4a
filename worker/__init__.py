"""streamlabel: a Kafka worker that labels text streams with a transformer model.

The packages, lowest first; a package imports only those above its own line::

    schemas    the wire contract; imports pydantic alone
    settings, errors, limits, heap, logs, clock, metrics, signals, exits, packages, processes,
    timeline, tls                   ground floor
    core       pure decisions: no threads, no I/O, no clock
    kafka_io   everything of Kafka; the only package that imports kafka
    registry   formats whose schemas a registry has; the only package that imports fastavro
    inference  texts to probabilities: tokenizer, engines, loading; bundled/ is a model
    http       metrics, health and the live page; web/ has the page's own files
    runtime    the record path: service, pipeline, stages, commits, rebalance
    pool       N workers under one parent
    demo       all that `streamlabel demo` runs
    bench      all that `streamlabel bench` runs
    cli        one file a command

The threads of a running worker::

    main ("poll")   consumer, batcher, offsets, state
    load            loads and checks a model and ends: before a record is read, or beside the
                    model in use
    tokenise        the tokenizer
    infer           the model, and a second one that is compared with it; sole caller of torch, but
                    for the load of another model
    lane-*          parts of a forward pass on a CPU, while infer waits for them
    publish         encoding, the producer, transactions
    registry        asks the schema registry; exists where a format needs one
    revoke          stands in for main while main is parked in a rebalance
    settings        waits for SIGHUP and looks at the settings file, to change the model
    http            metrics, health and the live page: one loop; reads, and asks the model
    (the SDK's)     exports spans, where `tracing.sample_ratio` is above 0
    reports, parent-watch   in a pool (`--processes N`): report to the parent; read its
                    questions, and notice its end
    token           renews the token of OAUTHBEARER, if a token endpoint gives it
    kafka-io-*      the client library's own; our callbacks enqueue and return

Data flows one way, main -> tokenise -> infer -> publish; only completions (acknowledged
records) come back, and only they move a committed offset.
"""
