"""InboxService: what a socket gets: missed events first, then live ones."""

from collections.abc import Callable

import orjson

from yral_chat.core.clock import SECOND, now
from yral_chat.core.config import Settings
from yral_chat.db.database import Database, UnitOfWork
from yral_chat.realtime.hub import Hub, Listener, replay_frame

RESYNC = "resync"


class InboxService:
    """Sockets of the users' inboxes (contract section 10)."""

    def __init__(self, settings: Settings, database: Database, hub: Hub, *, renew_url: Callable[[str], str]) -> None:
        """`renew_url` signs the address of a file anew: those in kept events have expired."""
        self._renew_url = renew_url
        self._settings = settings
        self._database = database
        self._hub = hub

    async def connect(self, user_id: str, *, wants_deltas: bool, since: int | None) -> tuple[Listener, list[str]]:
        """A listener, and the frames to send before those it takes: replayed events, or `resync`.

        Nothing is lost or doubled between the two: live events wait in the listener while the replay is read.
        """
        listener = self._hub.connect(user_id, wants_deltas=wants_deltas)
        try:
            newest, frames = await self._database.read(self._replay, user_id, since)
        except BaseException:
            self._hub.disconnect(listener)
            raise
        self._hub.begin(listener, newest)
        return listener, frames

    def disconnect(self, listener: Listener) -> None:
        self._hub.disconnect(listener)

    def _replay(self, uow: UnitOfWork, user_id: str, since: int | None) -> tuple[int, list[str]]:
        """(the newest event's number, frames after `since`)."""
        newest = uow.events.last_seq(user_id)
        if since is None or since == newest:
            return newest, []
        kept = self._settings.ws_replay_events
        if since > newest or since < newest - kept:
            return newest, [_resync(newest)]
        oldest = now() - round(self._settings.ws_replay_hours * 3600 * SECOND)
        found = uow.events.list_since(user_id, since, oldest)
        if not found or found[0][0] != since + 1:
            return newest, [_resync(newest)]
        if told := [data for _, event, data in found if event == RESYNC]:
            # More has changed meanwhile than events tell (services/restores), and whoever asks anew needs none of them.
            return newest, [replay_frame(RESYNC, newest, told[-1])]
        return newest, [replay_frame(event, seq, self._renewed(data)) for seq, event, data in found]

    def _renewed(self, data: str) -> str:
        """The event's data with addresses that work."""
        if "?" not in data:  # no signed address in it; spares text messages the decoding
            return data
        event = orjson.loads(data)
        message = event.get("message")
        if message is None:
            return data
        message["media_urls"] = [self._renew_url(url) for url in message["media_urls"]]
        if message["audio_url"] is not None:
            message["audio_url"] = self._renew_url(message["audio_url"])
        return orjson.dumps(event).decode()


def _resync(newest: int) -> str:
    return replay_frame(RESYNC, newest, '{"reason":"missed events are no longer kept"}')
