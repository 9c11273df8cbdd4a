"""The command line, one module a command. Imports stay light: `--help` must not load torch.

A command is a module with

* a docstring: the command's description (its summary is in `parser.COMMANDS`),
* `OPTIONS`: prefixes of the settings that are its flags; `()` for none,
* `add_arguments(parser)`: adds its own arguments,
* `run(args, loaded) -> int`: returns 0 (done) or 1 (failed); a `SettingsError` exits with 2.

Beside them: `main` runs a command; `parser` and `flags` make its options and its help; `texts` and
`answers` belong to `classify`, `verdicts` to `check`, `backfill_view` and `offsets_view` to their
commands.
"""
