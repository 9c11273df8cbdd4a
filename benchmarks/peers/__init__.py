"""The same work done by others, each in its own folder with its own locked requirements."""
