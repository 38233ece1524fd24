"""What is asked for, what a copy has of it, and what came of it."""

import msgspec
from typing_extensions import TypedDict

from yral_chat.core.errors import Invalid
from yral_chat.db.repositories.restores import Copied


class Wanted(msgspec.Struct, frozen=True):
    """A conversation, everything of a person, or with both one person's side of a conversation of two people.

    `is_forced`: also out of a copy of another database.
    """

    conversation_id: str | None = None
    user_id: str | None = None
    is_forced: bool = False

    def check(self) -> None:
        """Raises Invalid when it names nothing."""
        if self.conversation_id is None and self.user_id is None:
            raise Invalid.field(["body"], "Say which conversation, or whose", "missing")


class Then(msgspec.Struct, frozen=True):
    """A conversation as the copy has it.

    `gone` are its people whose accounts were erased since, with who stands in their place. `wanted` are the people who
    get back what they saw; the other one of two keeps the view that they have now.
    """

    row: Copied
    sides: dict[str, Copied]
    gone: dict[str, str]
    wanted: frozenset[str]

    @property
    def id(self) -> str:
        return self.row["id"]  # type: ignore[no-any-return]

    @property
    def influencer_id(self) -> str | None:
        return self.row["influencer_id"]  # type: ignore[no-any-return]

    @property
    def through(self) -> int:
        """The number of its last message."""
        return self.row["last_seq"]  # type: ignore[no-any-return]

    @property
    def people(self) -> tuple[str, ...]:
        return tuple(person for person in (self.row["user_id"], self.row["other_user_id"]) if person is not None)

    @property
    def present(self) -> tuple[str, ...]:
        """Those whose accounts may come back."""
        return tuple(person for person in self.people if person not in self.gone)


class Target(msgspec.Struct, frozen=True):
    """The conversation that takes it in. `is_new`: it was made for that."""

    id: str
    is_new: bool


class Found(TypedDict):
    """What a copy has. Times in microseconds.

    `missing` of the files that messages show are not stored any more, the first of them named in `missing_keys`; None:
    the storage does not answer.
    """

    conversations: int
    messages: int
    first_at: int | None
    last_at: int | None
    files: int
    missing: int | None
    missing_keys: list[str]
    memories: int


class LeftOut(TypedDict):
    conversation_id: str
    reason: str


class PutBack(TypedDict):
    """How many of each have come back. `conversations` are those that were gone as a whole."""

    conversations: int
    messages: int
    memories: int
    influencers: int
    left_out: list[LeftOut]


class Step(TypedDict, total=False):
    """`done`: so many messages of the copy were looked at. The last one has the `result`."""

    done: int
    result: PutBack
