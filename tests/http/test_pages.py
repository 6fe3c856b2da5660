"""The pages for people: files of our own under a strict policy, and nothing else; no browser is needed to see that."""

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx

import gateway.http
from gateway.http.pages import FILES, POLICY
from tests.http.support import TLS, Api

FOLDER = Path(gateway.http.__file__).parent / "static" / "page"
SVG = "http://www.w3.org/2000/svg"
FOREIGN = r"https?://|\burl\(|@import|innerHTML|eval\(|document\.write"
IMPORT = re.compile(r'^import \{ ([^}]+) \} from "\./([^"]+)";', re.MULTILINE)
EXPORT = re.compile(r"^export (?:async )?(?:const|class|function) (\w+)", re.MULTILINE)
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


async def test_the_files_are_served_under_a_strict_policy(api: Api) -> None:
    """Media type, security headers, and the headers that every answer carries; without a credential."""
    async with httpx.AsyncClient(base_url=api.url, verify=TLS) as client:
        for path, name in FILES.items():
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == f"{MEDIA_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-request-id"]
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(answer.content))


async def test_a_file_that_has_not_changed_is_not_sent_again(api: Api) -> None:
    """304 without a body for who has it, under the same policy."""
    async with httpx.AsyncClient(base_url=api.url, verify=TLS) as client:
        tags = {path: (await client.get(path)).headers["etag"] for path in FILES}
        assert len(set(tags.values())) == len(FILES)
        for path, tag in tags.items():
            again = await client.get(path, headers={"If-None-Match": f'"older", {tag}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["content-security-policy"] == POLICY


def test_the_policy_allows_nothing_inline_and_nothing_foreign() -> None:
    """Whatever the page may load comes from the gateway itself."""
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")
    assert "http" not in POLICY
    assert "*" not in POLICY


async def test_other_methods_and_paths_are_refused(api: Api) -> None:
    """405 that lists what is taken, 404 beside the page: errors of the contract, as everywhere."""
    client = api.as_(None)
    for path in FILES:
        options = await client.options(path)
        assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            refused = await client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    for path in (
        "/docs/",
        "/docs/docs.html",
        "/docs/../docs.py",
        "/page/../docs.js",
        "/page/",
        "/page/index.html",
    ):
        assert (await client.get(path)).status_code == 404
    for path in ("/docs%0a", "/docs/docs.js%0a", "/docs/%2e%2e/pages.py", "/page/main.js%0a"):
        assert (await client.get(path)).status_code == 400


class _Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append((tag, dict(attrs)))


async def test_nothing_is_inline_or_from_other_origins(api: Api) -> None:
    """No inline script, style or handler; every address is the gateway's own."""
    async with httpx.AsyncClient(base_url=api.url, verify=TLS) as client:
        texts = {path: (await client.get(path)).text for path in FILES}
    parser = _Tags()
    parser.feed(texts["/docs"] + texts["/"])
    for tag, attributes in parser.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        assert tag != "style"
        assert tag != "script" or attributes["src"]
    for path, text in texts.items():
        assert not re.findall(FOREIGN, text.replace(SVG, "")), path


def test_every_module_is_there_and_every_one_is_used() -> None:
    """What ``main.js`` imports, and what that imports: all of the files, and only names that those export."""
    seen: set[str] = set()
    todo = ["main.js"]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for names, other in IMPORT.findall((FOLDER / name).read_text()):
            exported = set(EXPORT.findall((FOLDER / other).read_text()))
            assert {each.strip() for each in names.split(",")} <= exported, f"{name} imports from {other}"
            todo.append(other)
    assert seen == {path.name for path in FOLDER.glob("*.js")}
