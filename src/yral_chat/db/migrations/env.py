"""Alembic's entry: it gets an open connection with a transaction from `migrate`, and leaves both to it."""

from alembic import context

from yral_chat.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # `migrate` has begun one transaction for everything, which SQLite can do as well
)
context.run_migrations()
