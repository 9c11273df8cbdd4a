"""The command line, one file a command. Imports stay light: `--help` must not load torch.

A command is a module with

* `HELP`: one line for the list of commands; its docstring is the command's own description,
* `OPTIONS`: prefixes of the settings whose flags it takes (`()` for none),
* `add_arguments(parser)`: what is its own,
* `run(args, loaded) -> int`: exit code 0 (done) or 1 (failed); `SettingsError` becomes 2.
"""
