"""What a PostgreSQL server says of its archive of the write-ahead log, which a tool such as pgBackRest fills."""

import msgspec

from yral_chat.db.viewing import looking


class Archive(msgspec.Struct, frozen=True):
    """https://www.postgresql.org/docs/15/monitoring-stats.html#MONITORING-PG-STAT-ARCHIVER-VIEW; ages in seconds."""

    is_on: bool
    last_segment: str | None
    last_age: float | None
    failed: int
    is_failing: bool  # the last attempt failed


def look_at_archive(url: str) -> Archive:
    """Anybody may ask. Raises DatabaseUnusable."""
    with looking(url) as connection:
        mode = str(connection.exec_driver_sql("SHOW archive_mode").scalar())
        row = connection.exec_driver_sql(
            "SELECT last_archived_wal, extract(epoch FROM now() - last_archived_time)::float8, failed_count,"
            " coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_stat_archiver"
        ).one()
        return Archive(mode != "off", row[0], row[1], row[2], row[3])
