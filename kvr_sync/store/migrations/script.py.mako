"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade(schema: str | None) -> None:
    """Do it, in the schema of one channel."""
    ${upgrades if upgrades else "raise NotImplementedError"}
