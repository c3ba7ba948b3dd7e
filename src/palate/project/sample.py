"""The bundled sample as a project: MovieLens ml-latest-small, its attributes and its golden labels."""

from __future__ import annotations

import shutil
from pathlib import Path

from palate.data.movielens import read_movielens_tags
from palate.errors import InputError, StorageError
from palate.knowledge.attributes import load_attributes
from palate.knowledge.golden import golden_from_tags
from palate.knowledge.golden_set import golden_split

_ROOT = Path(__file__).resolve().parents[3]


def make_sample(folder: Path) -> None:
    """Fill `folder` with the sample project; what is already there stays as it is.

    The data have their own terms and travel with the source, not with the wheel.

    Raises:
        InputError: if this installation has no sample.
        StorageError: if the folder cannot be written.
    """
    data, project = _ROOT / "data" / "ml-latest-small", _ROOT / "examples" / "movielens"
    if not data.is_dir() or not project.is_dir():
        raise InputError(
            "This installation has no sample data.",
            where=str(data),
            hint="Run the demo from a clone of the repository (the sample's terms keep it out of the wheel).",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in (
            (data, folder / data.name),
            (project / "attributes", folder / "attributes"),
            (project / "palate.yaml", folder / "palate.yaml"),
        ):
            if not target.exists():
                _copy(source, target)
        _write_golden(folder)
    except OSError as error:
        raise StorageError(
            "The sample project could not be written.",
            where=str(folder),
            got=error,
            hint="Choose another folder: palate demo DIR.",
        ) from error


def _copy(source: Path, target: Path) -> None:
    """Copy whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    if source.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
    else:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def _write_golden(folder: Path) -> None:
    target = folder / "golden" / "user_tags.csv"
    if target.exists():
        return
    target.parent.mkdir(exist_ok=True)
    golden_split(target.parent, salt="ml-latest-small")  # the same split wherever the demo runs
    rows = golden_from_tags(read_movielens_tags(folder / "ml-latest-small"), load_attributes(folder / "attributes"))
    temporary = target.with_name(".user_tags.tmp")
    rows.write_csv(temporary)
    temporary.replace(target)
