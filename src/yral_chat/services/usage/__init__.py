"""What is used, what it costs, and how much of it anybody may use in a day (contract section 4)."""

from yral_chat.db.repositories.jobs import RECORD_JOB
from yral_chat.services.usage.meter import Meter
from yral_chat.services.usage.prices import Prices, load_prices
from yral_chat.services.usage.quotas import Bound, Quotas
from yral_chat.services.usage.recording import Spent, record_spent
from yral_chat.services.usage.service import UsageReport, UsageService
from yral_chat.services.usage.tabs import Tab, Tabs

__all__ = [
    "RECORD_JOB", "Bound", "Meter", "Prices", "Quotas", "Spent", "Tab", "Tabs", "UsageReport",
    "UsageService", "load_prices", "record_spent",
]  # fmt: skip
