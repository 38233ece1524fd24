"""Every background job and chore, by name; each calls one service method."""

from collections.abc import Mapping

from yral_chat.resources import Resources
from yral_chat.services.job_runner import Chore, Handler
from yral_chat.services.media.service import REMOVE_JOB
from yral_chat.services.turns.ending import RECORD_JOB

# The counts of influencers are at most this old; contract section 11 allows 5 s.
FOLD_SECONDS = 2.0
TRIM_SECONDS = 600.0


def handlers(resources: Resources) -> Mapping[str, Handler]:
    """What runs the jobs of the outbox, by job name."""
    return {RECORD_JOB: resources.upkeep.record_turns, REMOVE_JOB: resources.media.remove}


def chores(resources: Resources) -> list[tuple[str, float, Chore]]:
    """What is done every so many seconds, as (name, seconds, what)."""
    return [
        ("counters.fold", FOLD_SECONDS, resources.upkeep.fold_counters),
        ("events.trim", TRIM_SECONDS, resources.upkeep.trim_events),
        ("media.expire", TRIM_SECONDS, resources.media.expire),
    ]
