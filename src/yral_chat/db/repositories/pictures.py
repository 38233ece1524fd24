"""Pictures that people have asked for, and how that ended."""

from typing import Literal

import msgspec
from sqlalchemy import bindparam, insert, select, update

from yral_chat.core.objects import ErrorCode
from yral_chat.db.execution import Executor, Row, Statement
from yral_chat.db.tables import picture_requests

PictureStatus = Literal["running", "done", "failed"]


class PictureRequest(msgspec.Struct, frozen=True):
    """One row; its id is that of the message that shows the picture. Times in microseconds."""

    id: str
    conversation_id: str
    user_id: str
    request_key: str | None
    prompt: str
    status: PictureStatus
    error_code: ErrorCode | None
    attempt: int
    created_at: int
    completed_at: int | None


_ALL = select(*(picture_requests.c[name] for name in PictureRequest.__struct_fields__))
_IN_CONVERSATION = picture_requests.c.conversation_id == bindparam("conversation")
_BY_ID = Statement(_ALL.where(picture_requests.c.id == bindparam("id")))
_BY_KEY = Statement(_ALL.where(_IN_CONVERSATION, picture_requests.c.request_key == bindparam("key")))
_NEWEST = Statement(_ALL.where(_IN_CONVERSATION).order_by(picture_requests.c.created_at.desc()).limit(1))
_ADD = Statement(insert(picture_requests))
_BEGIN = Statement(
    update(picture_requests)
    .where(picture_requests.c.id == bindparam("request"))
    .values(status="running", error_code=None, completed_at=None, attempt=bindparam("run"))
)
_END = Statement(
    update(picture_requests)
    .where(picture_requests.c.id == bindparam("request"))
    .values(status=bindparam("state"), error_code=bindparam("code"), completed_at=bindparam("time"))
)


class PictureRepository:
    """Rows of `picture_requests`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def add(self, request: PictureRequest) -> None:
        self._executor.run(_ADD, {name: getattr(request, name) for name in request.__struct_fields__})

    def find(self, request_id: str) -> PictureRequest | None:
        return _to_request(self._executor.one(_BY_ID, {"id": request_id}))

    def find_by_key(self, conversation_id: str, key: str) -> PictureRequest | None:
        return _to_request(self._executor.one(_BY_KEY, {"conversation": conversation_id, "key": key}))

    def find_newest(self, conversation_id: str) -> PictureRequest | None:
        return _to_request(self._executor.one(_NEWEST, {"conversation": conversation_id}))

    def begin(self, request_id: str, attempt: int) -> None:
        """Another attempt runs."""
        self._executor.run(_BEGIN, {"request": request_id, "run": attempt})

    def end(self, request_id: str, status: PictureStatus, error_code: ErrorCode | None, time: int) -> None:
        self._executor.run(_END, {"request": request_id, "state": status, "code": error_code, "time": time})


def _to_request(row: Row | None) -> PictureRequest | None:
    return None if row is None else PictureRequest(*row)
