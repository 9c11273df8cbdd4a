"""The scenarios: one file a subject. See `tests.kube`."""
