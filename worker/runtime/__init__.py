"""Ties the rooms together: stages on threads, the worker's main loop, the HTTP endpoints.

Imports core, kafka_io's protocols and the ground floor; the model comes in as a value, so that
nothing here loads torch. Never imports cli or local.
"""
