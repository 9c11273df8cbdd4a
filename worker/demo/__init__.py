"""The demo: a broker, posts, workers and a screen, on one machine and with nothing prepared.

Owns: all that `streamlabel demo` starts and shows. `bench` and the tests share its broker and posts.
Thread: the main thread.
Must not import: torch, transformers. No worker imports this package.

Modules::

    run             the order of a demo, from its first process to its last line
    broker          the embedded broker
    posts           the rated posts; `fallback_posts` where they can't be had
    sample          posts as records, with every kind of broken record among them
    feed            sends what is due and reads what came back; `tally` counts it
    workers         real `streamlabel run` processes
    helpers         short-lived Python processes
    view, summary   what a person sees, and how it ended
"""
