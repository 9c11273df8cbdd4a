"""The live page's own files, which `worker.http.files` reads. No Python, no host but the worker.

All but the charts is ours; they are uPlot's (MIT, see uPlot.LICENSE), as it is published.
"""
