"""Serves metrics, health and the live page over HTTP.

Owns: the listening socket, the thread `http` with its event loop, and what the page shows.
Thread: http, except `recent_*` (poll, publish), `ask` (tokenise, infer), and `client` and
    `terminal` (main, in `streamlabel top`). Code on the event loop must not block.
Must not import: kafka, torch, or a package other than worker.core and the ground floor.

Modules::

    server        the listening socket, the thread and its event loop
    connections   how many connections are open, and which one is closed for a new one
    routes        paths, methods and response headers
    guard         access: host names, other sites, the token
    health        the protocol behind /livez and /readyz
    snapshot      the page's figures, once a second
    history       readings of the metrics, kept whether or not anybody looks
    rings         numbers over time in bounded memory
    ranges        GET /history: the points of the charts
    activity      when something was labelled, and the means since the start
    figures       the figures of one reading, or between two
    reading       one collection of the metrics registry, and quantiles of histograms
    about         identity, settings in force, links: what stays the same while the worker runs
    notes         what the page shows beside the metrics, and how a pool merges it
    events        the event stream: one snapshot a second to every reader
    recent_posts  a sample of the last posts
    recent_dead_letters   the last dead letters
    classify      POST /classify: one text in, probabilities out
    ask           a text's way to the model, between two micro-batches
    feeds         what the pipeline provides for the page: the notes and the ask queue
    files         the page's own files, out of `worker/web/`
    client        reads the event stream, for `streamlabel top`
    terminal      renders a snapshot for a terminal
    terminal_parts   formats its numbers, draws its bars and panels
    label_colours   a label's colour in a terminal
"""
