"""What the metrics cost a request, and a unit of work."""

import time
from collections.abc import Callable

from benchmarks.rig import Rig, median_of
from yral_chat.core.metrics import Metrics

# As many series as a service has that answers all of its routes.
ROUTES = [("GET" if number % 2 else "POST", f"/api/v1/route-{number}/{{id}}", 200) for number in range(80)]


async def measure(rig: Rig) -> dict[str, float]:
    """Microseconds of CPU."""
    metrics, times = Metrics(), rig.counts.rate_checks

    def request(number: int) -> None:
        metrics.requests_in_progress.inc()
        metrics.requests_in_progress.dec()
        metrics.request_finished(*ROUTES[number % len(ROUTES)], 0.004)

    def unit(_: int) -> None:
        metrics.unit_finished("read", 0.0015, None)

    async def cpu_of(count: Callable[[int], None]) -> float:
        started = time.process_time()
        for number in range(times):
            count(number)
        return (time.process_time() - started) / times * 1e6

    return {
        "count_request": await median_of(rig.counts.rounds, lambda: cpu_of(request)),
        "count_unit": await median_of(rig.counts.rounds, lambda: cpu_of(unit)),
    }
