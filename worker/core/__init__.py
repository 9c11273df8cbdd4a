"""Pure decisions: no threads, no I/O, and no reading of the clock (`now` is an argument).

Owns: the values that pass through the worker, and every decision about them.
Thread: any; each module states its thread.
Must not import: any package of the worker but settings and errors; any third party but pydantic.
"""
