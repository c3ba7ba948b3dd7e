"""`palate keys`, and what a server refuses to start with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from palate.errors import InputError
from palate.serving.keys import Keys, keys_of, parse_keys, read_keys


def test_a_key_is_shown_once_and_kept_as_a_hash(palate, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    made = {}
    for name, scopes in (("shop", ["read", "events"]), ("feed", ["items"])):
        options = [word for scope in scopes for word in ("--scope", scope)]
        code, out, _ = palate("keys", "new", name, *options, "--file", file, "--json")
        assert code == 0
        made[name] = json.loads(out)["key"]
    text = file.read_text()
    assert not any(key in text for key in made.values())
    assert [entry["name"] for entry in yaml.safe_load(text)["keys"]] == ["shop", "feed"]
    keys = Keys(read_keys(file))
    found = keys.find(made["shop"])
    assert found is not None and found.name == "shop" and found.may("events") and not found.may("items")
    assert keys.find(made["shop"] + "x") is None and keys.find("") is None and keys.find("\ud800") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a b", "--scope", "read"], "name does not fit"),
        (["shop", "--scope", "root"], "no such scope"),
        (["shop", "--scope", "read", "--file", "keys.yaml"], "one name"),
    ],
)
def test_a_key_that_cannot_be_is_refused(palate, tmp_path: Path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    palate("keys", "new", "shop", "--scope", "read", "--file", "keys.yaml")
    before = (tmp_path / "keys.yaml").read_bytes()
    code, _, err = palate("keys", "new", *arguments)
    assert code == 2 and words in err
    assert (tmp_path / "keys.yaml").read_bytes() == before


def test_keys_of_the_environment() -> None:
    hashed = hashlib.sha256(b"one").hexdigest()
    text = json.dumps({"keys": [{"name": "one", "sha256": hashed, "scopes": ["read"], "rate": 5}]})
    keys = Keys(keys_of({"PALATE_KEYS": text, "PALATE_API_KEY": "plain"}))
    one, plain = keys.find("one"), keys.find("plain")
    assert one is not None and one.rate == 5 and not one.may("admin")
    assert plain is not None and all(map(plain.may, ("read", "events", "items", "admin")))
    assert not Keys(keys_of({"PALATE_API_KEY": ""}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("keys: [{name: x, sha256: SECRET, scopes: [read]}]", "keys.0.sha256"),
        ("keys: [{name: x, key: SECRET}]", "keys.0"),
        ("keys: {SECRET: 1}", "keys"),
        ("SECRET", "A key does not fit"),
        ("keys: [SECRET: : {", "not YAML"),
        ("", "A key does not fit"),
    ],
)
def test_a_wrong_key_file_says_where_and_not_what(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_keys(text, "keys.yaml")
    assert words in str(caught.value) and "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_server_is_not_opened_to_everyone_unasked(palate, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("PALATE_API_KEY", raising=False)
    code, _, err = palate("serve", "--project", tmp_path, "--host", "0.0.0.0", "--port", "0")
    assert code == 2 and "palate keys new" in err
    code, _, err = palate("demo", tmp_path / "demo", "--serve", "--host", "0.0.0.0", "--port", "0")
    assert code == 2 and "Without a key" in err and not (tmp_path / "demo").exists()
    for more in (["--open"], ["--state", "none"]):
        code, _, err = palate("serve", "--project", tmp_path, "--host", "0.0.0.0", "--port", "0", *more)
        assert code == 2 and "No snapshot is in use" in err
    code, _, err = palate("serve", "--project", tmp_path, "--keys", tmp_path / "absent.yaml")
    assert code == 2 and "key file cannot be read" in err
