"""Measures forward pass, tokeniser and whole path on one GPU: `python -m benchmarks.gpu`."""
