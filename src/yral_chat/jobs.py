"""Every background job and chore, by name; each calls one service method."""

from collections.abc import Mapping

from yral_chat.db.repositories.jobs import ERASE_JOB, RECORD_JOB
from yral_chat.resources import Resources
from yral_chat.services.job_runner import Chore, Kind
from yral_chat.services.media.service import REMOVE_JOB
from yral_chat.services.notifications import MAX_PUSH_AGE_SECONDS, OPERATOR_JOB, PUSH_JOB
from yral_chat.services.summaries import SUMMARISE_JOB
from yral_chat.services.turns.replying import EXTRACT_JOB

# The counts of influencers are at most this old; contract section 11 allows 5 s.
FOLD_SECONDS = 2.0
SEND_SECONDS = 5.0
TRIM_SECONDS = 600.0
SCRUB_SECONDS = 600.0
# Attempts that make a day of tries: what people have had erased is not given up for an outage.
A_DAY = 200


def handlers(resources: Resources) -> Mapping[str, Kind]:
    """What runs the jobs of the outbox, by job name."""
    notifications = resources.notifications
    return {
        RECORD_JOB: Kind(resources.upkeep.record_turns),
        REMOVE_JOB: Kind(resources.media.remove, group=10, attempts=A_DAY),
        PUSH_JOB: Kind(notifications.send_push, group=1, at_once=8, max_age_seconds=MAX_PUSH_AGE_SECONDS),
        OPERATOR_JOB: Kind(notifications.notify_operator, group=1, at_once=2),
        EXTRACT_JOB: Kind(resources.memories.extract, group=1, at_once=32),
        SUMMARISE_JOB: Kind(resources.summaries.summarise, group=1, at_once=2),
        ERASE_JOB: Kind(resources.accounts.continue_erasures, group=1, attempts=A_DAY),
    }


def chores(resources: Resources) -> list[tuple[str, float, Chore]]:
    """What is done every so many seconds, as (name, seconds, what)."""
    backup = resources.postgres_backup
    return [
        *([] if backup is None else [("erasures.send", SEND_SECONDS, backup.send_erasures)]),
        ("counters.fold", FOLD_SECONDS, resources.upkeep.fold_counters),
        ("events.trim", TRIM_SECONDS, resources.upkeep.trim_events),
        ("database.scrub", SCRUB_SECONDS, _not_at_the_start(resources.upkeep.scrub)),
        ("media.expire", TRIM_SECONDS, resources.media.expire),
        ("copies.expire", TRIM_SECONDS, resources.upkeep.expire_copies),
    ]


def _not_at_the_start(chore: Chore) -> Chore:
    """A start leaves the files as it found them, and is not slowed down by a checkpoint."""
    is_first = True

    async def run() -> None:
        nonlocal is_first
        if not is_first:
            await chore()
        is_first = False

    return run
