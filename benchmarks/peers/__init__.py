"""The same work done by other programs, each in a folder with its own locked requirements."""
