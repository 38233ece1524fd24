"""What the page's routes send, without a browser."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from yral_chat.core.config import Settings
from yral_chat.personas import PICTURES_DIR
from yral_chat.web import routes

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MODULE = re.compile("preact|htm")
PERSONA = next(PICTURES_DIR.glob("*.webp")).stem


def client_for(*, docs_enabled: bool = True) -> TestClient:
    app = FastAPI(docs_url=None, redoc_url=None, redirect_slashes=False)
    routes.install(app, Settings(docs_enabled=docs_enabled), "1.2.3")
    return TestClient(app)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with client_for() as client:
        yield client


def test_the_root_tells_api_clients_where_things_are(client: TestClient) -> None:
    response = client.get("/")
    assert response.json() == {
        "service": "Yral AI Chat",
        "version": "1.2.3",
        "status": "running",
        "docs": "/docs",
        "health": "/health",
        "metrics": "/metrics",
    }
    assert response.headers["vary"] == "Accept"


def test_the_root_is_the_page_for_browsers(client: TestClient) -> None:
    response = client.get("/", headers=BROWSER)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["vary"] == "Accept"
    assert response.headers["content-security-policy"] == routes.PAGE_POLICY
    assert response.headers["permissions-policy"] == routes.PERMISSIONS
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert '<div id="app">' in response.text


def test_several_accept_lines_are_one_list(client: TestClient) -> None:
    lines = [("Accept", "application/json;q=0.5"), ("Accept", "text/html")]
    assert client.get("/", headers=lines).headers["content-type"].startswith("text/html")


def test_answers_do_not_share_their_headers(client: TestClient) -> None:
    first = client.get("/", headers=BROWSER).headers.multi_items()
    assert [name for name, _ in client.get("/", headers=BROWSER).headers.multi_items()] == [name for name, _ in first]


@pytest.mark.parametrize("policy", [routes.PAGE_POLICY, routes.DOCS_POLICY])
def test_no_policy_lets_a_script_in_from_elsewhere(policy: str) -> None:
    directives = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert directives["script-src"] == "'self'"
    assert directives["default-src"] == directives["base-uri"] == directives["frame-ancestors"] == "'none'"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
def test_pages_load_only_files_of_this_service_and_nothing_inline(client: TestClient, path: str) -> None:
    page = client.get(path, headers=BROWSER).text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert addresses
    for address in addresses:
        assert client.get("/" + address.lstrip("/"), headers=BROWSER).status_code == 200, address
    assert not re.findall(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_every_import_of_a_module_resolves(client: TestClient) -> None:
    modules = [*routes.STATIC.glob("chat/**/*.js")]
    imports = re.compile(r'(?:from|import) "(\.[^"]+)"')
    found = [(module, target) for module in modules for target in imports.findall(module.read_text(encoding="utf-8"))]
    assert found
    missing = [f"{module.name}: {target}" for module, target in found if not (module.parent / target).is_file()]
    assert missing == []


def test_the_page_asks_for_all_its_modules_at_once() -> None:
    page = (routes.STATIC / "chat/index.html").read_text(encoding="utf-8")
    preloaded = set(re.findall(r'rel="modulepreload" href="static/([^"]+)"', page))
    modules = {path.relative_to(routes.STATIC).as_posix() for path in routes.STATIC.glob("chat/**/*.js")}
    vendored = {f"vendor/{path.name}" for path in routes.STATIC.glob("vendor/*.js") if MODULE.match(path.name)}
    assert preloaded == (modules | vendored) - {"chat/main.js", "chat/early.js"}


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_documentation_is_absent_where_it_is_switched_off(path: str) -> None:
    with client_for(docs_enabled=False) as client:
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/static/chat/main.js", "text/javascript; charset=utf-8"),
        ("/static/chat/chat.css", "text/css; charset=utf-8"),
        ("/static/chat/app.webmanifest", "application/manifest+json"),
        ("/static/icons/icon-192.png", "image/png"),
        (f"/static/personas/{PERSONA}.webp", "image/webp"),
        ("/favicon.ico", "image/x-icon"),
        ("/favicon.svg", "image/svg+xml"),
    ],
)
def test_files_have_their_media_type(client: TestClient, path: str, media_type: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)


@pytest.mark.parametrize(
    "path",
    [
        f"/static/personas/{PERSONA}.toml",
        f"/static/personas/{PERSONA}.svg",
        "/static/personas/__init__.py",
        "/static/personas/",
        "/static/personas/none.webp",
        "/static/personas/..%2Fweb%2Fstatic%2Ficons%2Ficon-192.png%00.webp",
        "/static/personas/%2e%2e/web/static/icons/icon-192.png",
        "/static/chat/index.html",
        "/static/vendor/README.md",
        "/static/chat",
        "/static/chat/..%2f..%2froutes.py",
        "/static/" + "a" * 5000 + ".js",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_files_whose_name_has_their_version_are_kept_for_good(client: TestClient) -> None:
    vendored = [path for path in (routes.STATIC / "vendor").iterdir() if path.suffix in (".js", ".css")]
    assert vendored
    for path in vendored:
        assert "immutable" in client.get(f"/static/vendor/{path.name}").headers["cache-control"]


def test_the_pages_own_files_are_revalidated(client: TestClient) -> None:
    first = client.get("/static/chat/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/static/chat/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


def test_files_only_answer_reads(client: TestClient) -> None:
    response = client.post("/static/chat/main.js")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert client.head("/static/chat/main.js").status_code == 200


def test_only_the_root_is_in_the_openapi_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert list(document["paths"]) == ["/"]
    content = document["paths"]["/"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/html"}


def test_vendored_packages_come_with_their_licences() -> None:
    vendor = routes.STATIC / "vendor"
    readme = (vendor / "README.md").read_text(encoding="utf-8")
    for path in vendor.glob("*.*"):
        assert path.name == "README.md" or f"`{path.name}`" in readme
    for package in ("preact", "htm", "swagger-ui", "redoc"):
        assert (vendor / "licenses" / f"{package}-LICENSE.txt").stat().st_size > 500


def test_the_vendored_modules_import_only_each_other() -> None:
    specifiers = re.compile(r'(?:from|import)\s*"([^"]+)"')
    modules = [path for path in routes.STATIC.glob("vendor/*.js") if MODULE.match(path.name)]
    assert {path.name: specifiers.findall(path.read_text(encoding="utf-8")) for path in modules} == {
        "preact-11.2.0.js": [],
        "preact-hooks-11.2.0.js": ["./preact-11.2.0.js"],
        "htm-3.1.1.js": [],
    }
