"""One run of a restore: conversation by conversation, page by page."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from loguru import logger

from yral_chat.core.clock import now
from yral_chat.core.errors import AppError, Conflict, ConversationNotFound
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.db.repositories.restores import Copied
from yral_chat.db.snapshots import Snapshot
from yral_chat.services.restores import counting, merging, opening, owning, placing, reading, remembering
from yral_chat.services.restores.comparing import PAGE, Comparison, Overview, Page
from yral_chat.services.restores.erased import Erasures
from yral_chat.services.restores.merging import Shown
from yral_chat.services.restores.records import PutBack, Step, Target, Then, Wanted
from yral_chat.services.restores.sparing import spare_files

RESTORED = "conversation.restored"  # in audit_events


class Run:
    """`result` is complete at the end; `touched` are the people who are to be told, `personas` those that changed."""

    def __init__(
        self, database: Database, copy: Snapshot, wanted: Wanted, erasures: Erasures, wake_jobs: Callable[[], None]
    ) -> None:
        self._database = database
        self._copy = copy
        self._wanted = wanted
        self._erasures = erasures
        self._wake_jobs = wake_jobs
        self._time = now()
        self._done = 0
        self.touched: set[str] = set()
        self.personas: set[str] = set()
        self.result: PutBack = {"conversations": 0, "messages": 0, "memories": 0, "influencers": 0, "left_out": []}

    async def steps(self) -> AsyncGenerator[Step, None]:
        """The first comes once it is clear that there is something to put back."""
        wanted = self._wanted
        if wanted.conversation_id is None and wanted.user_id is not None:
            await self._copy.read(owning.check_user, wanted.user_id, self._erasures)
            yield {"done": 0}
            await self._put_account(wanted.user_id)
        async for conversation_id in reading.list_conversations(self._copy, wanted):
            try:
                then = await self._copy.read(reading.find_then, conversation_id, wanted, self._erasures)
                if then is None:
                    continue
                yield {"done": self._done}
                async with aclosing(self._put_conversation(then)) as steps:
                    async for step in steps:
                        yield step
            except (Conflict, ConversationNotFound) as error:
                if wanted.conversation_id is not None:
                    raise
                self._leave_out(conversation_id, error)

    def _leave_out(self, conversation_id: str, error: AppError) -> None:
        self.result["left_out"].append({"conversation_id": conversation_id, "reason": error.message})
        logger.warning("restore.conversation_left_out", conversation_id=conversation_id, reason=error.message)

    # a conversation

    async def _put_conversation(self, then: Then) -> AsyncGenerator[Step, None]:
        await spare_files(self._database, self._copy, then.id, wake_jobs=self._wake_jobs)
        target = await self._open_target(then)
        comparison = Comparison(self._database, self._copy, then, target.id)
        is_changed, count, overview = target.is_new, 0, Overview()
        if not target.is_new:
            overview = await self._make_room(then, target, comparison)
            is_changed = await self._database.write(opening.prepare, then, target, overview, self._erasures)
        async with aclosing(comparison.pages()) as pages:
            async for page in pages:
                if page.crowded_at is not None:
                    raise merging.ChangedMeanwhile
                if page.missing:
                    count += await self._put_messages(then, target, page)
                self._done += page.size
                yield {"done": self._done}
        memories = 0 if then.influencer_id is None else await self._put_memories(then, target, overview)
        if await self._database.read(counting.is_miscounted, target.id):
            is_changed |= await self._database.write(counting.count_anew, target.id)
        if is_changed or count or memories:
            await self._database.write(_note, target, count, memories)
            self._count(then, target, count, memories)

    async def _open_target(self, then: Then) -> Target:
        def read(uow: UnitOfWork) -> tuple[Copied | None, list[str]]:
            first = uow.restores.list_heads(then.id, 0, PAGE)
            return uow.restores.find_influencer(then.influencer_id or ""), [head.id for head in first]

        persona, first = await self._copy.read(read)
        return await self._database.write(opening.open_target, then, persona, first, self._erasures)

    def _count(self, then: Then, target: Target, messages: int, memories: int) -> None:
        self.result["conversations"] += int(target.is_new)
        self.result["messages"] += messages
        self.result["memories"] += memories
        self.touched |= then.wanted
        if then.influencer_id is not None:
            self.personas.add(then.influencer_id)

    async def _make_room(self, then: Then, target: Target, comparison: Comparison) -> Overview:
        """Keeps the places free; moves up what lies where something is missing: see placing."""
        while True:
            end = await self._database.write(placing.end_of, target.id)
            overview = await comparison.look()
            if overview.crowded_at is not None:
                await self._move_up(then, target, overview.crowded_at)
            elif await self._database.write(placing.keep_free, target.id, overview.last, end):
                return overview

    async def _move_up(self, then: Then, target: Target, time: int) -> None:
        low = await self._database.read(lambda uow: uow.places.find_first_since(target.id, time))
        if low is None:
            return
        high, by = await self._database.write(placing.begin_to_move, target.id, low, then.through)
        while high >= low:
            high = await self._database.write(placing.move_some, target.id, low, high, by)

    async def _put_messages(self, then: Then, target: Target, page: Page) -> int:
        places = {head.id: head for head in page.missing}

        def read(uow: UnitOfWork) -> Shown:
            rows = uow.restores.list_messages(then.id, page.after, PAGE)
            missing = [merging.placed(row, places[row["id"]]) for row in rows if row["id"] in places]
            return Shown(missing, *reading.list_shown(uow, list(places), self._erasures))

        shown = await self._copy.read(read)
        return await self._database.write(merging.put_back, then, target.id, shown, self._erasures, self._time)

    async def _put_memories(self, then: Then, target: Target, overview: Overview) -> int:
        remembered = await self._copy.read(remembering.read_memories, then.id)
        count = await self._database.write(
            remembering.remember_again, then, target.id, remembered, overview, self._erasures, self._time
        )
        after = ""
        while page := await self._copy.read(lambda uow, after: uow.restores.list_pictures(then.id, after, PAGE), after):
            after = page[-1]["id"]
            await self._database.write(remembering.ask_again, target.id, page, self._time)
        return count

    # what a person has beside

    async def _put_account(self, user_id: str) -> None:
        settings = await self._copy.read(lambda uow: uow.restores.find_settings(user_id))
        await self._database.write(owning.put_settings, user_id, settings, self._erasures)
        place = (0, "")
        while True:
            files, place = await self._copy.read(owning.list_public_files, user_id, place)
            if not place[0]:
                break
            if files:
                await self._database.write(owning.put_files, user_id, files, self._erasures)
        place = (0, "")
        while page := await self._copy.read(lambda uow, place: uow.accounts.list_owned(user_id, place, PAGE), place):
            for place in page:
                await self._put_persona(user_id, place[1])

    async def _put_persona(self, user_id: str, influencer_id: str) -> None:
        if await self._database.read(lambda uow: uow.influencers.find(influencer_id)) is not None:
            return
        owned = await self._copy.read(owning.read_owned, influencer_id)
        if owned is not None and await self._database.write(owning.put_owned, user_id, owned, self._erasures):
            self.result["influencers"] += 1
            self.personas.add(influencer_id)


def _note(uow: UnitOfWork, target: Target, messages: int, memories: int) -> None:
    """For operators who look this up later."""
    details = {"messages": messages, "memories": memories}
    uow.audit.add(RESTORED, target.id, now(), details=details)
