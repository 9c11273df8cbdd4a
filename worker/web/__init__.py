"""Holds the live page's own files, which `worker.http.files` serves. It has no Python code.

The page loads nothing from other hosts. uPlot draws its charts (MIT, see uPlot.LICENSE; unchanged).
"""
