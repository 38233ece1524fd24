"""A language model for work behind the turns, recorded like a turn's calls."""

from yral_chat.clients.language_model import LanguageModel, ModelFailure, ModelRequest
from yral_chat.core.errors import QuotaExceeded
from yral_chat.db.repositories.jobs import Job
from yral_chat.services.structured_answers import ask_text
from yral_chat.services.usage import Quotas, Tab, Tabs

# A failure that is this request's own: another try would end the same way.
_FINAL = frozenset({"blocked", "rejected", "empty", "truncated"})


class QuotaUsedUp(ModelFailure):
    """Nobody was asked: the person for whom it would be has used up the day's quota."""

    def __init__(self) -> None:
        super().__init__("quota", "the quota of the day is used up", is_outage=False)


class BackgroundModel:
    """`is_offline`: there is no vendor, and whatever a model would do here is done without one."""

    def __init__(self, model: LanguageModel, quotas: Quotas, tabs: Tabs, *, is_offline: bool) -> None:
        self._model = model
        self._quotas = quotas
        self._tabs = tabs
        self.is_offline = is_offline

    async def answer(self, request: ModelRequest, job: Job) -> str:
        """The whole answer, trimmed. What it costs is recorded for those whom the job's payload names, either way.

        Raises ModelFailure; QuotaUsedUp when it may not be asked.
        """
        tab = _tab_of(job)
        if self._quotas.is_on:
            try:
                await self._tabs.open(tab, self._quotas.most_of(request))
            except QuotaExceeded as error:
                raise QuotaUsedUp from error
        try:
            return await ask_text(self._model, request, tab.calls)
        finally:
            await self._tabs.close(tab)


def _tab_of(job: Job) -> Tab:
    # A dead job that is tried again counts its attempts from 1 again, and is created anew.
    payload, key = job.payload, f"{job.name}:{job.id}:{job.created_at}"
    tab = Tab(
        payload["user_id"],
        payload["influencer_id"],
        turn_id=payload["turn_id"],
        attempt=job.attempts,
        conversation_id=payload["conversation_id"],
        key=f"{key}:{job.attempts}",
    )
    if job.attempts > 1 and not job.has_failed:
        tab.lost_key = f"{key}:{job.attempts - 1}"
    return tab


def is_final(failure: ModelFailure) -> bool:
    """Whether trying again later is of no use."""
    return failure.outcome in _FINAL and not failure.is_outage
