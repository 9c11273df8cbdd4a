"""What the worker answers over HTTP: metrics, health and the live page.

All of it but `posts` runs on the HTTP thread's loop, and nothing of it may block. It imports the
ground floor and core; the page's own files are in `worker/web/`.

Rooms::

    routes     the paths, their methods and headers
    guard      who may ask: no foreign site, no foreign name, no one without the token
    classify   the box: a text in, probabilities out
    events     one picture a second for all who watch
    snapshot   what the page shows
    files      the page's own files
    reading    what a registry says, and what happened between two such moments
    recent_posts   the last posts, a few a second
"""
