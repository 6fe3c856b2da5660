"""Random settings files: taken, or refused with each mistake named and no password."""

import json
import re
from pathlib import Path

from hypothesis import strategies as st

from gateway.settings import loading
from gateway.settings.loading import SettingsError
from tests.support.fuzzing import TEXTS, Target, fuzz, leaks, mangled

CORPUS = Path(__file__).parent / "corpus"


# --- the gateway's own settings ---------------------------------------------------------------------------------------

_PASSWORD = "FuzzedPassword"
_SHOWN_URL = re.compile(rf":/{{1,2}}[^\s/:@]*:{_PASSWORD}@")
_VALUES = st.one_of(
    *(TEXTS.map(json.dumps), st.integers(-5, 70_000).map(str), st.booleans().map(lambda yes: str(yes).lower())),
    st.lists(TEXTS, max_size=2).map(json.dumps),
    st.sampled_from(
        [
            *('"mqtt://gateway:FuzzedPassword@broker:1883"', '"mqtts://u:FuzzedPassword@[::1]"', '"127.0.0.1:99999"'),
            *("nan", "inf", "1979-05-27", '"mqtt://:FuzzedPassword@"', '"http://x:FuzzedPassword@y"', "{}", "'''"),
            *('"localhost:0"', '"[::1]:8080"', "'none'", '"mqtt://a:FuzzedPassword@b:c"', "1e400", "0x10", "9" * 40),
        ]
    ),
)


_LINES = st.builds(lambda name, value: f"{name} = {value}\n", st.sampled_from(sorted(loading.FIELDS)) | TEXTS, _VALUES)
TOML = Target(
    "toml",
    0.06,
    st.one_of(
        st.lists(_LINES, max_size=4).map(lambda lines: "".join(lines).encode("utf-8", "surrogatepass")),
        mangled(st.lists(_LINES, max_size=3).map(lambda lines: "".join(lines).encode("utf-8", "surrogatepass"))),
    ),
)


def test_random_toml_never_breaks_the_loader(tmp_path: Path) -> None:
    """A settings file is taken, or each thing that is wrong with it is named with its source, and no password is."""
    file = tmp_path / "gateway.toml"

    def check(raw: bytes) -> None:
        file.write_bytes(raw)
        try:
            loaded = loading.load({}, {}, file)
        except SettingsError as error:
            _names_what_is_wrong(str(error))
        else:
            assert _PASSWORD not in loading.written(loaded.settings.broker)

    fuzz(TOML, check, CORPUS / "toml.json")


def _names_what_is_wrong(message: str) -> None:
    assert "gateway.toml" in message or "default" in message, message
    assert not _SHOWN_URL.search(message), message
    assert leaks(message) == []
