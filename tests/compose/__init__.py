"""Proves docker-compose.yml on a container engine: `python -m tests.compose`, `make containers`.

    stack     one Compose project: starts, scales, breaks and asks its services
    feed      sends texts to its Kafka, and tells when all of them are labelled
    proof     the steps, each with what must hold after it
    report    prints the steps, with times and figures, as they end

The program builds the image with Compose itself; its wheels come from this machine's pip.
"""
