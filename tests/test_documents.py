"""What the documents say works: their commands are run, their links lead somewhere, and what they name exists."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs import require
from tests.service import START_SECONDS, Process
from yral_chat.cli import app
from yral_chat.core.config import Settings
from yral_chat.core.objects import FAILURES
from yral_chat.core.version import VERSION

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
RUN_SECONDS = 200
MARK = "=== block "
# Words in capitals that are no settings.
OTHER_WORDS = {*FAILURES, "PATH", "PYTHON", "ARGS", "REQUIRE_SERVICES", "YRAL_CHAT_TOKEN", "SIGTERM", "DEBUG", "POST"}


class Block(NamedTuple):
    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", document.read_text(), re.M | re.S)]


def prose(document: Path) -> str:
    """Without what stands in fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)


def code_spans(document: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(document))


# --- the commands


class Checkout:
    """A folder that looks like a fresh checkout after `make run`, with the service running on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in ROOT.iterdir():
            if path.name not in (".env", ".venv", "data", ".git"):
                (folder / path.name).symlink_to(path)
        (folder / ".venv").symlink_to(sys.prefix)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.environment = {**kept, "OFFLINE_WORDS_PER_SECOND": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["sh", "-c", f'cd "{folder}" && PORT=0 exec .venv/bin/yral-chat serve']
        self.server = Process(command, self.environment, "open    http")
        address = self.server.wait_for_marker(START_SECONDS).split()[-1]
        self.environment["PORT"] = address.rsplit(":", 1)[1]

    def follow(self, document: Path) -> list[str]:
        """Runs the document's `sh` and `python` blocks in one shell, as a reader would; returns what each printed."""
        script = ["set -euo pipefail"]
        for number, block in enumerate(found for found in blocks(document) if found.language in ("sh", "python")):
            text = block.text.replace("8000", self.environment["PORT"])
            script.append(f"echo; echo '{MARK}{number}'")
            if block.language == "python":
                script.append(f".venv/bin/python - <<'END'\n{text}END")
            else:  # the service runs already
                script += [line for line in text.splitlines() if line != "make run"]
        done = subprocess.run(
            [require("bash", shutil.which("bash")), "-c", "\n".join(script)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.server.output}"
        return [part.split("\n", 1)[1].strip() for part in done.stdout.split(MARK)[1:]]

    def close(self) -> None:
        self.server.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    require("curl", shutil.which("curl"))
    found = Checkout(tmp_path_factory.mktemp("checkout"))
    yield found
    found.close()


def test_the_first_screen_of_the_readme_works(checkout: Checkout) -> None:
    run, talk = checkout.follow(ROOT / "README.md")
    assert run == "", "make run comes first and alone"
    assert talk.startswith("id: 1-0\nevent: start\n")
    assert "event: token\n" in talk
    assert "offline demo of Leela" in talk
    assert "event: done\n" in talk.rsplit("\n\n", 1)[-1]


def test_the_readme_shows_one_sentence_one_command_one_request_one_picture() -> None:
    first_screen = (ROOT / "README.md").read_text().split("\n## ")[0]
    assert blocks(ROOT / "README.md")[0] == Block("sh", "make run\n")
    assert first_screen.index("make run") < first_screen.index("curl -N") < first_screen.index("](docs/images/")
    assert len(first_screen.splitlines()) < 40


def test_the_quick_start_works(checkout: Checkout) -> None:
    _, chat, me, doctor = checkout.follow(ROOT / "docs/quick-start.md")
    assert "offline demo of Naveed" in chat
    assert '"user_id":"ada"' in me
    assert "served now" in doctor
    assert "✗" not in doctor


def test_the_examples_for_clients_work(checkout: Checkout) -> None:
    found = iter(checkout.follow(ROOT / "docs/clients.md"))
    assert '"user_id":"ada"' in next(found)
    assert '"total":10' in next(found)
    assert next(found) == "", "opening a conversation"
    assert '"client_message_id":"8d6f2f0c-1"' in next(found)
    assert next(found).lower() == "idempotency-replayed: true"
    assert '"message_type":"multimodal"' in next(found)
    assert '"origin":"image"' in next(found)
    streamed, resumed = next(found), next(found)
    assert (streamed.count("event: start"), streamed.count("event: done")) == (1, 1)
    assert resumed.count("event: start") == 0
    assert resumed.splitlines()[-1] == streamed.splitlines()[-1], "the same end"
    stopped = next(found)
    assert stopped.startswith('{"id":')
    assert '"attempt":2' in stopped
    assert next(found).count('"messages":[') == 2
    assert '"content":"Hello, Grace!"' in next(found)
    assert re.search(r"\nunread: \d+, continue with since=\d+$", next(found))
    assert next(found).endswith('"time_zone":"Asia/Kolkata"}')
    assert next(found).startswith('{"from":"2026-03-01","to":"2026-03-31","limits":')
    assert next(found).startswith('{"deleted":{"conversations":')
    assert '"name":"BrunoCooks"' in next(found)
    assert next(found).endswith('"finish_reason":"stop"}]}\n\ndata: [DONE]')
    assert next(found).startswith("x-ratelimit-limit-minute: 60\nx-ratelimit-limit-hour: 1000\nratelimit-policy: ")
    assert '"error":"not_found"' in next(found)
    assert next(found, None) is None


# --- what is named


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        is_there = path.exists() and path.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in anchors(path)):
            missing.append(link)
    assert missing == []


def test_every_risk_is_linked_to_tests_that_exist() -> None:
    """The lists of OWASP in docs/security.md: a link is the name of a test, and leads to its file."""
    document = ROOT / "docs/security.md"
    rows = re.findall(r"^\| ((?:API|LLM)\d+) .*$", document.read_text(), re.M)
    assert rows == [f"API{number}" for number in range(1, 11)] + [f"LLM{number:02}" for number in range(1, 11)]
    for row in re.findall(r"^\| (?:API|LLM)\d+ .*$", document.read_text(), re.M):
        links = re.findall(r"\[(test_\w+)\]\(([^)]+)\)", row.split(" | ")[-1])
        assert links, row
        for name, target in links:
            written = (document.parent / target).read_text()
            assert re.search(rf"^(async )?def {name}\(", written, re.M), f"{name} is not in {target}"


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    top = {path.name for path in ROOT.iterdir()} - {"data", ".venv"}
    named = [span for span in code_spans(ROOT / name) if re.fullmatch(r"[\w.\-/]+", span)]
    paths = [span for span in named if span.split("/")[0] in top]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_commands_that_are_named_exist(name: str) -> None:
    document = ROOT / name
    text = "\n".join([*code_spans(document), *(block.text for block in blocks(document))])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {group.name for group in app.registered_groups if group.name}
    assert set(re.findall(r"^make ([a-z-]+)", text, re.M)) <= targets
    assert set(re.findall(r"yral-chat ([a-z-]+)", text)) <= commands


# The page about the settings has a test of its own, which is stricter.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "docs/configuration.md"])
def test_settings_that_are_named_exist(name: str) -> None:
    document = ROOT / name
    spans = [span.split("=")[0] for span in code_spans(document)]
    examples = [block.text for block in blocks(document) if block.language == "ini" and "[Unit]" not in block.text]
    # Those of OpenTelemetry are read by its SDK.
    named = {span for span in spans if re.fullmatch(r"(?!OTEL_(?!ENABLED))[A-Z][A-Z_]{3,}", span)}
    named |= set(re.findall(r"^([A-Z_]+)=", "\n".join(examples), re.M))
    settings = {field.upper() for field in Settings.model_fields}
    assert named - settings - OTHER_WORDS == set()


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        if document in reached or document.suffix != ".md" or not document.exists():
            continue
        reached.add(document)
        links = re.findall(r"\]\(([^)#\s]+)", prose(document))
        waiting += [(document.parent / link).resolve() for link in links if not link.startswith("http")]
    assert [name for name, document in zip(NAMES, DOCUMENTS, strict=True) if document not in reached] == []


def test_decisions_say_what_a_decision_must() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        parts = {heading.split(",")[0] for heading in re.findall(r"^## (.+)$", page.read_text(), re.M)}
        assert {"Context", "Decision", "Consequences", "Refused"} <= parts, page.name
        assert page.read_text().startswith(f"# {page.name[:4]} ")


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert first is not None
    assert first[1] == VERSION
