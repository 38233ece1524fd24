"""The whole database of a service that has come to rest."""

from collections import defaultdict
from typing import Any

from sqlalchemy import Table, select

from tests.rows import fetch
from tests.service import Service
from yral_chat.db import tables

Row = Any


class Stored:
    """Every table the checks look at; messages by conversation in the order of `seq`."""

    def __init__(self, service: Service) -> None:
        self.conversations = {row.id: row for row in _all(service, tables.conversations)}
        self.participants = _all(service, tables.participants)
        self.influencers = {row.id: row for row in _all(service, tables.influencers)}
        self.principals = {row.id: row for row in _all(service, tables.principals)}
        self.turns = _all(service, tables.turns)
        self.jobs = _all(service, tables.jobs)
        self.usage = _all(service, tables.usage_events)
        self.usage_days = _all(service, tables.usage_days)
        self.open_usage = _all(service, tables.open_usage)
        self.memories = _all(service, tables.memories)
        self.deltas = _all(service, tables.counter_deltas)
        self.counters = {row.name: row.value for row in _all(service, tables.counters)}
        self.events: dict[str, dict[int, Row]] = defaultdict(dict)
        for row in _all(service, tables.events):
            self.events[row.user_id][row.seq] = row
        self.messages = {row.id: row for row in _all(service, tables.messages)}
        self.history: dict[str, list[Row]] = {conversation: [] for conversation in self.conversations}
        for row in sorted(self.messages.values(), key=lambda row: row.seq):
            self.history[row.conversation_id].append(row)
        self.reply_to = {row.reply_to: row for row in self.messages.values() if row.reply_to is not None}


def _all(service: Service, table: Table) -> list[Row]:
    return fetch(service, select(table))


def is_at_rest(service: Service) -> bool:
    """Nothing runs, nothing waits to be counted."""
    return not any(
        fetch(service, select(table).limit(1)) for table in (tables.turns, tables.jobs, tables.counter_deltas)
    )
