"""What only `demo`, the tests and the documentation need: embedded broker, sample posts, tables.

Production rooms never import this one. Imports core, schemas and the ground floor.
"""
