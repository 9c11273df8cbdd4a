"""streamlabel: a Kafka worker that labels text streams with a transformer model.

The rooms, and who may import whom (never upward, never sideways)::

    schemas    the wire contract, pydantic only; never imports worker
    settings, errors, metrics, logs, clock, signals, packages      the ground floor
    core       pure decisions: decoder, encoder, batcher, offsets, faults, audit ledger
    kafka_io   the only rooms that import kafka
    inference  the only rooms that import torch and transformers
    runtime    the stages, the worker's main loop, the HTTP endpoints
    web        the live page's own files: no Python
    local      what only `demo` and the tests need: embedded broker, sample posts
    cli        one file a command

The threads of a running worker::

    main ("poll")   consumer, batcher, offsets, state
    load            loads and checks the model, and ends before a record is read
    tokenise        the tokenizer
    infer           the model; sole caller of torch
    lane-*          parts of a forward pass on a CPU, while infer waits for them
    publish         encoding, the producer, transactions
    revoke          stands in for main while main is parked in a rebalance
    http            metrics, health and the live page: one loop; reads, and asks the box
    (the SDK's)     exports spans, where `tracing.sample_ratio` is above 0
    reports, leash  in a pool (`--processes N`): tell the parent; hear what it asks, and that it is gone
    kafka-io-*      the client library's own; our callbacks enqueue and return

Data flows one way, main -> tokenise -> infer -> publish; only completions (acknowledged
records) come back, and only they move a committed offset.
"""
