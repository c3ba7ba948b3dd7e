"""The command `palate` as a person calls it."""

import sys

import pytest

from palate.cli.main import run


@pytest.fixture
def palate(monkeypatch, capsys):
    """Exit code, stdout and stderr of a command line."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["palate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            run()
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return call
