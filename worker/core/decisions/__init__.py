"""Decisions about a record, its text and its label: each pure, each off by default."""
