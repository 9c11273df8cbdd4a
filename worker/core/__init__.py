"""Pure decisions: no threads, no I/O, no reading of the clock (`now` is an argument)."""
