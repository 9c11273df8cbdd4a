"""The command line, one file a command. Imports stay light: `--help` must not load torch.

A command is a module with

* a docstring: the command's description (its line in the list stands in `main.COMMANDS`),
* `OPTIONS`: prefixes of the settings whose flags it takes (`()` for none),
* `add_arguments(parser)`: what is its own,
* `run(args, loaded) -> int`: exit code 0 (done) or 1 (failed); `SettingsError` becomes 2.
"""
