"""UsageService: what a person has used, day by day (contract section 14)."""

from datetime import date

from typing_extensions import TypedDict

from yral_chat.core.clock import date_text, day_of, now
from yral_chat.core.errors import Invalid
from yral_chat.db.database import Database
from yral_chat.db.repositories.usage import Counts
from yral_chat.services.usage.prices import money_text
from yral_chat.services.usage.quotas import Quotas
from yral_chat.services.usage.recording import user_day

DEFAULT_DAYS = 30
MAX_DAYS = 400
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST = date.min.toordinal() - _EPOCH


class UsedTokens(TypedDict):
    """`prompt` includes `cached`."""

    prompt: int
    cached: int
    completion: int
    thinking: int


class UsageLimits(TypedDict):
    tokens_per_day: int | None
    cost_per_day: str | None


class UsedToday(TypedDict):
    tokens: int
    cost: str


class UsageDay(TypedDict):
    date: str
    turns: int
    tokens: UsedTokens
    cost: str
    currency: str


# `from` is no name in Python.
UsageReport = TypedDict(
    "UsageReport",
    {"from": str, "to": str, "limits": UsageLimits, "today": UsedToday, "days": list[UsageDay]},
)


class UsageService:
    """See the module."""

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self._quotas = quotas

    async def report(self, user_id: str, first: date | None, last: date | None) -> UsageReport:
        """Every day from `first` to `last`, both included, oldest first; by default the last 30 days until today (UTC).

        Raises Invalid when they are the wrong way round or more than 400 days apart. A turn is in it some tenths of a
        second after its end.
        """
        today = day_of(now())
        end = today if last is None else last.toordinal() - _EPOCH
        begin = max(_FIRST, end - DEFAULT_DAYS + 1) if first is None else first.toordinal() - _EPOCH
        if begin > end:
            raise Invalid.field(["query", "from"], "Later than `to`", "invalid_range")
        if end - begin >= MAX_DAYS:
            raise Invalid.field(["query", "from"], f"More than {MAX_DAYS} days before `to`", "invalid_range")
        used = await self._database.read(lambda uow: uow.usage.list_days(user_day(user_id, begin), end))
        used_today = used.get(today)
        if used_today is None:
            used_today = await self._database.read(lambda uow: uow.usage.find_day(user_day(user_id, today)))
        quotas = self._quotas
        return {
            "from": date_text(begin),
            "to": date_text(end),
            "limits": {
                "tokens_per_day": quotas.tokens_per_user or None,
                "cost_per_day": money_text(quotas.cost_per_user) if quotas.cost_per_user else None,
            },
            "today": {"tokens": used_today.tokens, "cost": money_text(used_today.cost)},
            "days": [_on_the_wire(day, used.get(day) or Counts()) for day in range(begin, end + 1)],
        }


def _on_the_wire(day: int, counts: Counts) -> UsageDay:
    return {
        "date": date_text(day),
        "turns": counts.turns,
        "tokens": {
            "prompt": counts.prompt_tokens,
            "cached": counts.cached_tokens,
            "completion": counts.output_tokens,
            "thinking": counts.thinking_tokens,
        },
        "cost": money_text(counts.cost),
        "currency": "USD",
    }
