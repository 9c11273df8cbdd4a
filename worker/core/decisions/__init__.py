"""From probabilities to decisions: which labels hold for a text, and where its result goes.

Owns: the packages' modules; each says what it decides.
Thread: any; the modules are pure.
Must not import: any package of the worker but core.
"""
