"""Whether a database is as it must be, and whether a copy is what it is a copy of."""

from yral_chat.db.checksums import Difference, TableSum, TableUnreadable, compare, sum_tables
from yral_chat.db.verification.erased import find_left
from yral_chat.db.verification.examining import UNASKED, Examination, examine
from yral_chat.db.verification.faults import Fault, find_faults

__all__ = [
    "UNASKED", "Difference", "Examination", "Fault", "TableSum", "TableUnreadable", "compare", "examine", "find_faults",
    "find_left", "sum_tables",
]  # fmt: skip
