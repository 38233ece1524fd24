"""Which database this is: its backups carry the same name, so that none is taken for another's."""

import sqlalchemy as sa
from alembic import op

from yral_chat.core.clock import now
from yral_chat.core.ids import new_id

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.bulk_insert(installation, [{"id": new_id(), "created_at": now()}])
