"""Formats of records: how a value is parsed, and how a result is serialised.

Plain formats are here, and `format.py` has the protocols. Formats whose schemas come from a
registry are in `worker/registry`. `launch` chooses both.
"""
