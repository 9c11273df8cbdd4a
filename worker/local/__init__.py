"""What only `demo`, `bench`, tests and documentation need: broker, posts, figures, tables.

Production rooms never import this one. Imports core, schemas and the ground floor.
"""
