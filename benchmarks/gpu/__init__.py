"""Measures the worker's own forward pass, tokeniser and path on a GPU: `python -m benchmarks.gpu`."""
