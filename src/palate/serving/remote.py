"""Snapshots on any fsspec address (`s3://`, `gs://`, `file://`, …): pushed whole, fetched whole, checked before use.

A server never reads from there: it maps a local copy, and a thread looks for another choice.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from palate.errors import InputError, PalateError, StorageError, printable
from palate.serving.load import load_snapshot, read_manifest
from palate.serving.snapshot import BUILDING, file_sha256, sweep
from palate.serving.versions import CURRENT, MANIFEST, current_name, list_snapshots, prune, use

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
_TRIES, _PAUSE = 3, 0.5  # seconds before the second try, twice as long before the third
_BLOCK = 1 << 22
_KEPT = 3  # local copies
_PATIENCE = 300.0  # seconds between looks at most, where they go on failing


class RemoteSnapshots:
    """The snapshots below an address.

    Args:
        url: An address of fsspec, with `options` for its driver; credentials are the driver's own matter.

    Raises:
        InputError: for an address of no known kind, or one whose driver is not installed.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        import fsspec  # type: ignore[import-untyped]

        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **(options or {}))
        except (ImportError, ValueError) as error:
            raise InputError(
                "Snapshots cannot be reached there.",
                where=printable(url),
                got=error,
                hint="Install fsspec's driver for such an address: pip install s3fs, gcsfs, adlfs, …",
            ) from error

    def current(self) -> str:
        """The name of the one in use there.

        Raises:
            StorageError: None is, or the address cannot be read; retryable.
        """
        said = self._read(CURRENT).decode("utf-8", "replace").split()
        if not said or not _NAME.fullmatch(said[0]):
            raise self._failed("No snapshot is in use there", said[:1])
        return said[0]

    def push(self, folder: Path) -> str:
        """Copy a whole snapshot there and make it the current one; what is there already is not sent again.

        Its manifest goes last, so that half a snapshot is none.

        Raises:
            StorageError: The snapshot is damaged, or cannot be written; the choice there stays.
        """
        manifest = read_manifest(folder / MANIFEST)
        name = str(manifest["name"])
        for file, facts in manifest["files"].items():
            if file_sha256(folder / file) != facts["sha256"]:
                raise StorageError("A file of the snapshot is damaged", where=str(folder / file))
        if not self._whole(name, manifest):
            for file in [*manifest["files"], MANIFEST]:
                self._try(lambda file=file: self._send(folder / file, f"{name}/{file}"))  # type: ignore[misc]
        earlier = [each for each in self._chosen() if each != name]
        self._try(lambda: self._files.pipe_file(self._at(CURRENT), "\n".join([name, *earlier[:20], ""]).encode()))
        return name

    def pull(self, folder: Path, name: str | None = None) -> str:
        """Have the current one, or another, below a local `folder`, whole and checked, and in use there.

        Raises:
            InputError: A name that none can have.
            StorageError: It cannot be fetched whole; the folder and its choice stay as they were. Retryable.
        """
        name = name or self.current()
        if not _NAME.fullmatch(name):
            raise InputError("A snapshot has no such name.", got=name)
        if name not in list_snapshots(folder):
            self._fetch(folder, name)
        try:
            load_snapshot(folder / name)
        except StorageError:
            shutil.rmtree(folder / name, ignore_errors=True)  # so that it is fetched again
            raise
        use(folder, name)
        return name

    def _fetch(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        temporary = Path(tempfile.mkdtemp(prefix=BUILDING, dir=folder))
        try:
            self._try(lambda: self._get(f"{name}/{MANIFEST}", temporary / MANIFEST, None))
            manifest = read_manifest(temporary / MANIFEST)
            if manifest["name"] != name:
                raise self._failed("The snapshot is not the one of its folder", manifest["name"])
            for file, facts in manifest["files"].items():
                if not _FILE.fullmatch(file):
                    raise self._failed("A file of the snapshot has a name that none may have", file)
                self._try(lambda file=file, facts=facts: self._get(f"{name}/{file}", temporary / file, facts))  # type: ignore[misc]
            temporary.chmod(0o755)
            if not (folder / name).exists():  # nor by another worker, meanwhile
                temporary.rename(folder / name)
        except OSError as error:
            raise StorageError(
                "The snapshot could not be kept", where=str(folder), got=error, retryable=True
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _get(self, there: str, here: Path, facts: dict[str, Any] | None) -> None:
        """One file; refused unless it is what the manifest says."""
        with self._files.open(self._at(there), "rb") as source, here.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)
        if facts is not None and (here.stat().st_size != facts["bytes"] or file_sha256(here) != facts["sha256"]):
            raise self._failed("A file came in part or changed", there)

    def _send(self, here: Path, there: str) -> None:
        path = self._at(there)
        self._files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        with here.open("rb") as source, self._files.open(path, "wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)

    def _whole(self, name: str, manifest: dict[str, Any]) -> bool:
        try:
            return bool(json.loads(self._files.cat_file(self._at(f"{name}/{MANIFEST}"))) == manifest)
        except (OSError, ValueError):
            return False

    def _chosen(self) -> list[str]:
        try:
            return [each for each in self._read(CURRENT).decode().split() if _NAME.fullmatch(each)]
        except (StorageError, UnicodeDecodeError):
            return []

    def _read(self, name: str) -> bytes:
        try:
            return bytes(self._files.cat_file(self._at(name)))
        except Exception as error:  # every driver has its own
            raise self._failed("The snapshots cannot be read", error) from error

    def _try(self, work: Callable[[], object]) -> None:
        """Again, a moment later, where it fails: networks do."""
        for attempt in range(_TRIES):
            try:
                work()
            except Exception as error:  # every driver has its own
                if attempt == _TRIES - 1:
                    if isinstance(error, StorageError):
                        raise
                    raise self._failed("The snapshots cannot be read or written", error) from error
                time.sleep(_PAUSE * 2**attempt)
            else:
                return

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _failed(self, what: str, got: object) -> StorageError:
        return StorageError(what, where=printable(self.url), got=printable(got), retryable=True)


class Follower:
    """Keeps a local folder at what is current at an address, in a thread; `problem` says why it does not, if so."""

    def __init__(self, remote: RemoteSnapshots, folder: Path, seconds: float = 10.0) -> None:
        self.remote, self.folder, self.seconds = remote, folder, seconds
        self.problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)

    def start(self) -> Follower:
        """Fetch once, then go on in the background.

        Raises:
            PalateError: Nothing can be fetched, and the folder has none from before.
        """
        try:
            self.look()
        except PalateError as error:
            if current_name(self.folder) is None:
                raise
            self.problem = str(error)
        self._thread.start()
        return self

    def look(self) -> bool:
        """Whether another snapshot was taken over."""
        name = self.remote.current()
        if current_name(self.folder) == name:
            return False
        self.remote.pull(self.folder, name)
        prune(self.folder, _KEPT)
        return True

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def _follow(self) -> None:
        failures = 0
        while not self._stop.wait(min(self.seconds * 2**failures, max(self.seconds, _PATIENCE))):
            try:
                self.look()
                self.problem, failures = "", 0
            except Exception as error:  # the old one stays, whatever it is: this thread must not end
                self.problem, failures = str(error), failures + 1
