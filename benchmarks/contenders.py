"""The same four operations on our Database and on what it was chosen over (docs/decisions, design of the database).

Run as a program, one contender measures itself in a process of its own and prints what it found as JSON.
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import aiosqlite
import uvloop
from sqlalchemy import bindparam, case, event, insert, select, update
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from benchmarks import seeding
from yral_chat.core.clock import now
from yral_chat.core.ids import new_id
from yral_chat.db.backends import create_database
from yral_chat.db.database import UnitOfWork
