"""What the worker answers over HTTP: metrics, health and the live page.

All of it runs on the HTTP thread's loop, and nothing of it may block. It imports the ground floor
and core; the page's own files are in `worker/web/`.

Rooms::

    app        the paths, their methods and headers
"""
