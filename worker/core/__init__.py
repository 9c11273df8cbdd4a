"""Pure decisions: no threads, no I/O, and no reading of the clock (`now` is an argument)."""
