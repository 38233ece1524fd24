"""What `make check` runs beside the formatter, the linter, the type checker and the import rules."""
