"""Whoever has had their account erased does not come back with a copy that is older than that."""

from collections import defaultdict
from collections.abc import Collection

from yral_chat.core.errors import Conflict
from yral_chat.core.ids import pseudonym_of
from yral_chat.db.database import UnitOfWork
from yral_chat.services.accounts.erasure_log import Erasure


class AccountErased(Conflict):
    message = "This account was erased after the copy was made: nothing of it comes back"


class Erasures:
    """`finished` are the ids of those that the database had lived through before the `log` was read: each stands in the
    log first, so that one that is in neither has ended since. Not by their times: clocks are set back.
    """

    def __init__(self, log: list[Erasure], finished: Collection[str] = ()) -> None:
        self._finished = frozenset(finished)
        self._by_user: defaultdict[str, list[Erasure]] = defaultdict(list)
        for erasure in log:
            self._by_user[erasure.user_id].append(erasure)

    def find(self, copy: UnitOfWork, user_id: str) -> Erasure | None:
        """The newest that this copy has not lived through; an account may be erased and begun anew."""
        for erasure in reversed(self._by_user.get(user_id, [])):
            if not copy.accounts.is_finished(erasure.id):
                return erasure
        return None

    def check(self, uow: UnitOfWork, *user_ids: str) -> None:
        """In each unit that adds something of these people. Raises AccountErased."""
        for user_id in user_ids:
            if uow.accounts.is_being_erased(user_id):
                raise AccountErased
            if not self._finished.issuperset(uow.accounts.list_erasures(pseudonym_of(user_id))):
                raise AccountErased
