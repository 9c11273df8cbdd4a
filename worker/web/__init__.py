"""The live page's own files, which `worker.runtime.page.files` reads. No code, no host but the worker.

page.html, page.css and page.js are ours; the charts are uPlot's (MIT, see uPlot.LICENSE), as it is
published.
"""
