"""Runs the record path of one worker: stages on threads, the main loop, offsets, rebalances.

Owns: everything between a polled record and its committed offset.
Thread: each module names its own.
Must not import: inference, cli, pool. The model is passed in, so that nothing here loads torch.

Modules::

    serve          one worker from its settings to its last commit
    launch         topics checked, clients connected, the worker run
    assembly       the parts, built in the order of their dependence
    labeller_choice one labeller or several, by the settings
    context        the groups in which parts are handed over
    formats        of the input and of results, chosen by the settings
    topics         the topics and the group, checked before the first poll
    service        the main loop and the shutdown                          (main thread)
    intake         polled records to micro-batches
    holds          partitions that wait for a schema
    pipeline       the three stages                     (tokenise, infer, publish threads)
    stage          one stage: a thread between two bounded hand-offs
    labelling      a micro-batch to its outcomes               (tokenise, infer threads)
    tokenised_batch a micro-batch between tokenizer and model
    forward        forward passes, split where one fails
    completions    acknowledgements and crashes, reported to the main loop
    commits        offsets, committed
    ending         the end of a worker that labels a range
    rebalance      partitions assigned, revoked, lost                     (revoke thread)
    cleanup        last steps, run even if one of them fails
    status         gauges, health and logs, once a second
    progress       liveness and readiness                           (read by any thread)
    reachability   does a service answer that the worker needs
    stall          which stage holds records, and its stack
    input_delays   open transactions and slow joins of other clients
    outcome_counts which counters an outcome raises
    outcome_logs   throughput, dead letters, expired results
    drift          labels and confidences compared with the first ones
    tracing, spans a span for each micro-batch
"""
