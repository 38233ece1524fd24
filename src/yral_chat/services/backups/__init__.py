"""Continuous backup of the SQLite database with Litestream, and the proof that it restores."""
