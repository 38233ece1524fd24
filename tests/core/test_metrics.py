"""The series of contract section 6, each application with its own."""

from pathlib import Path

import pytest

from yral_chat.core.cache import LRUCache
from yral_chat.core.errors import ConversationNotFound, ServiceUnavailable, StorageFull
from yral_chat.core.metrics import MAX_MODELS, Metrics


def test_every_promised_series_is_there() -> None:
    metrics = Metrics()
    metrics.request_finished("GET", "/health", 200, 0.01)
    metrics.turn_finished("gemini", "gemini-2.5-flash", "completed", 1.5)
    metrics.turn_first_token.observe(0.3)
    metrics.tokens_used("gemini", "gemini-2.5-flash", "prompt", 120)
    metrics.watch_circuit("llm_gemini", lambda: 2.0)
    metrics.limit_refused("per_minute")
    lines = set(metrics.render().decode().splitlines())
    assert lines >= {
        'http_requests_total{endpoint="/health",method="GET",status_code="200"} 1.0',
        'http_request_duration_seconds_count{endpoint="/health",method="GET"} 1.0',
        "http_requests_in_progress 0.0",
        'turns_total{model="gemini-2.5-flash",outcome="completed",provider="gemini"} 1.0',
        "turns_in_progress 0.0",
        "turn_duration_seconds_count 1.0",
        "turn_first_token_seconds_sum 0.3",
        'ai_tokens_total{kind="prompt",model="gemini-2.5-flash",provider="gemini"} 120.0',
        'circuit_breaker_state{service="llm_gemini"} 2.0',
        "ws_connections 0.0",
        'rate_limit_exceeded_total{limit_type="per_minute"} 1.0',
        "db_pool_in_use 0.0",
    }


def test_two_applications_in_one_process_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.ws_connections.inc()
    assert b"ws_connections 1.0" in first.render()
    assert b"ws_connections 0.0" in second.render()


def test_made_up_methods_share_one_series() -> None:
    metrics = Metrics()
    for n in range(50):
        metrics.request_finished(f"BREW{n}", "unmatched", 405, 0.001)
    text = metrics.render().decode()
    assert 'http_requests_total{endpoint="unmatched",method="OTHER",status_code="405"} 50.0' in text
    assert "BREW" not in text


async def test_a_cache_is_read_at_each_scrape() -> None:
    metrics, cache = Metrics(), LRUCache()

    async def load() -> tuple[str, int]:
        return "value", 5

    metrics.watch_cache("main", cache.counters)
    assert b'cache_hits_total{cache="main"} 0.0' in metrics.render()
    for _ in range(3):
        await cache.get("key", load)
    lines = metrics.render().decode().splitlines()
    assert 'cache_hits_total{cache="main"} 2.0' in lines
    assert 'cache_misses_total{cache="main"} 1.0' in lines
    assert 'cache_evictions_total{cache="main"} 0.0' in lines
    assert 'cache_bytes{cache="main"} 5.0' in lines


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_same_request_adds_up(repeats: int) -> None:
    metrics = Metrics()
    for _ in range(repeats):
        metrics.request_finished("POST", "/a/{b}", 201, 0.2)
    expected = f'http_request_duration_seconds_bucket{{endpoint="/a/{{b}}",le="0.25",method="POST"}} {repeats}.0'
    assert expected in metrics.render().decode()


def test_a_vendor_that_names_a_new_model_each_time_adds_few_series() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.turn_finished("gemini", f"gemini-{number}", "completed", 1)
        metrics.tokens_used("gemini", f"gemini-{number}", "prompt", 1)
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    for name in ("turns_total", "ai_tokens_total"):
        found = [line for line in lines if line.startswith(name)]
        assert len(found) == MAX_MODELS + 1
        assert sum(float(line.rpartition(" ")[2]) for line in found) == 1000
        assert any('model="other"' in line and line.endswith(f" {1000 - MAX_MODELS}.0") for line in found)


def test_a_circuit_has_its_series_before_it_changes() -> None:
    metrics = Metrics()
    metrics.watch_circuit("storage", lambda: 0.0)
    metrics.circuit_changed("storage", "open")
    lines = metrics.render().decode().splitlines()
    changes = 'circuit_breaker_transitions_total{service="storage",to="%s"} %s'
    assert {changes % ("open", "1.0"), changes % ("half_open", "0.0"), changes % ("closed", "0.0")} <= set(lines)


@pytest.mark.parametrize(
    ("error", "is_counted"),
    [
        (None, False),
        (ConversationNotFound(), False),
        (ServiceUnavailable(details={"service": "turns"}), False),
        (ServiceUnavailable(details={"service": "database"}), True),
        (StorageFull(), True),
        (ValueError("a mistake of ours"), True),
    ],
)
def test_only_what_the_database_failed_is_its_failure(error: Exception | None, is_counted: bool) -> None:
    metrics = Metrics()
    metrics.unit_finished("write", 0.002, error)
    lines = metrics.render().decode().splitlines()
    assert f'db_units_failed_total{{kind="write"}} {float(is_counted)}' in lines
    assert 'db_unit_seconds_bucket{kind="write",le="0.0025"} 1.0' in lines


def test_a_folder_that_is_gone_does_not_hide_the_other_series(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch_disk(tmp_path / "gone")
    assert b"disk_free_bytes NaN" in metrics.render()
