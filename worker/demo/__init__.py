"""The demo: an embedded broker, sample posts, real workers and a screen, on one machine.

Owns: everything that `streamlabel demo` starts and shows. `bench` and the tests share its broker,
    posts and workers.
Thread: main.
Must not import: torch, transformers. No worker imports this package.

Modules::

    run             the order of a demo, from its first process to its last line
    broker          the embedded broker
    posts           the rated posts; `fallback_posts` replaces them when they can't be downloaded
    blocklist       leaves out posts with slurs or sexual words
    sample          posts as records, with every kind of broken record among them
    avro_sample     the same in Avro
    formats         what differs in Avro; `registry` starts a schema registry
    feed            sends the records that are due and reads the outcomes; `tally` counts them
    workers         real `streamlabel run` processes
    helpers         short-lived Python processes
    view, summary   the screen, and the report at the end
"""
