"""What a GPU does with the worker's own forward pass, tokeniser and path: `python -m benchmarks.gpu`."""
