"""Which pairs of images to register: those of a folder, or those that a CSV file lists."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdnet.errors import InputError, shown
from sdnet.files import open_regular
from sdnet.paths import path_problem, user_path
from sdnet.preparation.sen12 import find_pairs


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Two files to register; the name is that of the pair's folder of results."""

    name: str
    optical: Path
    sar: Path


def list_pairs(source: Path) -> list[PairFiles]:
    """The pairs of a folder (as for training), or of a CSV file with the columns optical and sar.

    Paths in the file are relative to it. A column `name` names the results; left out, it is the stem of
    the optical file. Raises InputError for a file without pairs, or with two pairs of one name.
    """
    if source.is_dir():
        return [PairFiles(pair.name, pair.optical, pair.sar) for pair in find_pairs(source).pairs]
    pairs, seen = list(_listed(source)), set()
    if not pairs:
        raise InputError(f"{source} lists no pair; give a line `optical,sar` and a line for each pair")
    for pair in pairs:
        if not pair.name or "/" in pair.name or pair.name.startswith(".") or path_problem(pair.name):
            raise InputError(
                f"{source} names a pair {shown(pair.name)}; a name is that of a folder, without /"
            )
        if pair.name in seen:
            raise InputError(f"{source} has two pairs named {shown(pair.name)}; add a column `name`")
        seen.add(pair.name)
    return pairs


def _listed(source: Path) -> Iterator[PairFiles]:
    try:
        with open_regular(source) as file:
            text = file.read().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        _refuse_repeated(source, reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror}); give a folder or a CSV file") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{source} is not a CSV file in UTF-8; give a folder or a CSV file") from None
    for number, row in rows:
        if not {"optical", "sar"} <= set(row):
            named = shown([column for column in row if column is not None])
            raise InputError(
                f"{source} has the columns {named}; write `optical,sar` in its first line, with a comma"
            )
        if None in row:  # the key of DictReader for cells without a column
            raise InputError(
                f"{source}, line {number}, has more cells than the header; quote a path that contains a comma"
            )
        if not row.get("optical") or not row.get("sar"):
            raise InputError(
                f"{source}, line {number}, has no `optical` or no `sar`; both columns are needed"
            )
        optical, sar = (source.parent / user_path(row[column], column) for column in ("optical", "sar"))
        yield PairFiles(row.get("name") or optical.stem, optical, sar)


def _refuse_repeated(source: Path, columns: Sequence[str]) -> None:
    """Raise InputError if a column occurs twice. `DictReader` would use the last one."""
    for name in ("optical", "sar", "name"):
        if list(columns).count(name) > 1:
            raise InputError(f"{source} has two columns `{name}`; remove one of them")
