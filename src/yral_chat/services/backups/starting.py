"""What a start with backups does: a pure decision about what lies here and what lies at the target.

Three things must never happen: a restore that failed is taken for a new deployment; something empty or older is
written over a backup; two databases are mixed in one history.
"""

import msgspec

from yral_chat.services.backups.catalogue import Entry, Generation, Reason, missing_text


class End(msgspec.Struct, frozen=True):
    """How far a target had come: its newest generation, and the last transaction of that."""

    generation: str
    txid: int


class LocalState(msgspec.Struct, frozen=True):
    """`DATA_DIR/backup.json`: where the database of this folder is backed up to.

    `generation` is None after a restore, until a new one begins; `replaces` is what was the newest at the target then.
    `owner` is the folder that began the generation; nothing of it was noted by earlier versions.
    """

    target: str
    database_id: str
    generation: str | None
    replaces: End | None = None
    owner: str = ""


class Here(msgspec.Struct, frozen=True):
    """What there is on this machine. `database_id` is None without a database, or with an empty one.

    `last_txid` is the last transaction that Litestream has read here; None when it has no state here. `owner` tells the
    folder from its copies.
    """

    database_id: str | None = None
    state: LocalState | None = None
    last_txid: int | None = None
    owner: str = ""


class There(msgspec.Struct, frozen=True):
    """What there is at the target. `newest` is the last generation that ever had anything in it, `last_txid` its end; 0
    where its objects are missing.

    A generation that never had anything in it was not replicated to: its start was cut.
    """

    name: str
    entry: Entry | None = None
    has_other_objects: bool = False
    newest: Generation | None = None
    last_txid: int = 0


class Begin(msgspec.Struct, frozen=True):
    """A new generation."""

    reason: Reason


class Continue(msgspec.Struct, frozen=True):
    """The generation that this folder writes already."""

    generation: Generation


class Restore(msgspec.Struct, frozen=True):
    """First the newest state of this generation, then a new one of the same database."""

    database_id: str
    generation: Generation
    txid: int


class Refuse(msgspec.Struct, frozen=True):
    """Stop, and say this."""

    message: str


Decision = Begin | Continue | Restore | Refuse


def decide(here: Here, there: There, *, is_new: bool) -> Decision:
    """`is_new`: the operator has said `--new`: begin anew, and leave what is there alone."""
    if is_new:
        return Begin("asked")
    if there.entry is None:
        if there.has_other_objects:
            return Refuse(
                f"{there.name} holds files, but no current.json that says which backup they are. If they are the "
                "backup, put it back; if this is to be another one, set BACKUP_URL to an empty place, or start "
                "with --new."
            )
        if here.state is not None and here.state.target == there.name:
            return Refuse(
                f"{there.name} had the backup of this folder, and is empty now. Is the disk mounted, is the bucket the "
                "right one? If the backup is really gone, start with --new to begin another one."
            )
        return Begin("first")
    if here.database_id is None:
        if there.newest is None:
            return Refuse(
                f"{there.name} is marked as the backup of a database, but holds nothing of it, so that nothing can be "
                "restored. Look for what is missing; or start with --new to begin anew."
            )
        if not there.last_txid:
            return Refuse(missing_text(there.name, there.newest))
        return Restore(there.entry.database_id, there.newest, there.last_txid)
    if _was_restored(here, there):
        return Begin("restored")
    if here.database_id != there.entry.database_id:
        return Refuse(
            f"{there.name} is the backup of another database than the one in DATA_DIR. Set BACKUP_URL to another "
            "place; or move DATA_DIR's database away, with its -wal, to have the backup restored; or start with --new "
            "to begin another backup."
        )
    return _go_on(here, there, there.entry.generations)


def _was_restored(here: Here, there: There) -> bool:
    """By hand or by a start that was cut, and nothing has come to the target since."""
    state, newest = here.state, there.newest
    if state is None or state.generation is not None:
        return False
    if (state.target, state.database_id) != (there.name, here.database_id):
        return False
    replaces = state.replaces or End("", 0)
    return newest is None or (replaces.generation == newest.id and replaces.txid >= there.last_txid)


def _go_on(here: Here, there: There, generations: tuple[Generation, ...]) -> Decision:
    """The database is that of the backup: is it also the newest state of it?"""
    newest = there.newest
    # What is noted of another database, which lay here before, says nothing of this one.
    state = here.state if here.state is not None and here.state.database_id == here.database_id else None
    mine = state.generation if state is not None and state.target == there.name else None
    if newest is None or (mine is not None and mine != newest.id and mine == generations[-1].id):
        # What was begun last has nothing in it, and this folder alone has gone on since: its start was cut.
        return Begin(generations[-1].reason if generations else "first")
    if not there.last_txid:
        return Refuse(missing_text(there.name, newest))
    if mine == newest.id and here.last_txid is not None and here.last_txid >= there.last_txid:
        # What this is a copy of may live, out of sight, and send more into its generation.
        is_copy = state is None or state.owner != here.owner
        return Begin("moved") if is_copy else Continue(newest)
    return Refuse(
        f"The database in DATA_DIR may be older than its backup at {there.name}. "
        "`yral-chat restore --latest` brings the newest state here and keeps this one aside; "
        "or start with --new to go on with this one and leave that backup alone."
    )
