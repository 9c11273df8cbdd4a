"""What is decided about a text: before the model, from its probabilities, and where results go.

Everything here is pure.
"""
