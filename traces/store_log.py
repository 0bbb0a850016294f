"""`FragmentLog`: rows that many writers append to and nobody changes, as Parquet files."""

import posixpath
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar

from attnscope.traces.errors import StoreError
from attnscope.traces.store_arrow import places
from attnscope.traces.store_files import StoreFiles

__all__ = ["Fold", "FragmentLog", "new_id"]

_ATTEMPTS = 20
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Fold:
    """What a compaction did: `taken` files became `written`; `rows` stand in those."""

    taken: int
    written: int
    rows: int


def new_id() -> str:
    """Return a name that no other writer takes, in the order of time: 32 hexadecimal digits."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


class FragmentLog:
    """A set of rows that only grows, kept as Parquet files in one folder of a store.

    A commit is one new file under a name of its own: it appears whole, or not at all, and needs no
    lock. A compaction writes the rows of many files into one, and deletes those only when it
    stands; at every moment each row is in at least one file. A crash in between, or two
    compactions at once, leave rows in two files: they have the same key, and count once.

    A compacted file bears a higher generation in its name, and so stands behind what it replaces
    in a sorted listing, which therefore sees the old files or the new one.

    Args:
        files: The files of the store.
        folder: The folder of the log.
        schema: The columns (a `pyarrow.Schema`).
        key: The columns that tell one row from another.
    """

    def __init__(self, files: StoreFiles, folder: str, schema: Any, key: Sequence[str]) -> None:
        self.files, self.folder, self.schema, self.key = files, folder, schema, list(key)
        self._tables: dict[str, Any] = {}
        self._rows: Any = None

    def commit(self, rows: Any) -> str:
        """Append a table of rows, and return the name of its file; when it returns they are kept.

        Args:
            rows: A `pyarrow.Table` of the log's schema.
        """
        return self._write(rows, generation=0)

    def read(self) -> Any:
        """Return all rows as one `pyarrow.Table`, each once.

        Files never change: those that were read before are not read again, and where there is no
        other one, the same table is returned.

        Raises:
            StoreError: A file is damaged.
        """
        return self._settled(self._remembered)

    def scan(self, columns: Sequence[str] | None = None, keep: Any = None) -> Any:
        """Return some columns of the rows that an expression keeps, each row once.

        Reads the parts of the files that may hold such rows, by their statistics.

        Args:
            columns: Names; by default all.
            keep: A `pyarrow.dataset` expression; by default every row.

        Raises:
            StoreError: A file is damaged.
        """
        wanted = None if columns is None else list(dict.fromkeys([*self.key, *columns]))

        def take(names: Sequence[str]) -> Any:
            found = self._dataset(names).to_table(columns=wanted, filter=keep)
            return self._distinct(found)

        table = self._settled(take)
        return table if columns is None else table.select(list(columns))

    def compact(self, most_bytes: int) -> Fold:
        """Write the rows of the smaller files into one, and delete those files.

        Args:
            most_bytes: Files as large as this stay as they are, and about so much is held in
                memory.

        Raises:
            StoreError: A file is damaged.
        """
        sizes = self.files.sizes(self.folder)
        batches: list[list[str]] = [[]]
        held = 0
        for name in (name for name in sorted(sizes) if sizes[name] < most_bytes):
            if held + sizes[name] > most_bytes and batches[-1]:
                batches.append([])
                held = 0
            batches[-1].append(name)
            held += sizes[name]
        folds = [self._fold(batch) for batch in batches if len(batch) > 1]
        return Fold(
            taken=sum(fold.taken for fold in folds),
            written=len(folds),
            rows=sum(fold.rows for fold in folds),
        )

    def damaged(self) -> dict[str, str]:
        """Return why files cannot be read, by name."""
        reasons: dict[str, str] = {}
        for name in self.files.names(self.folder):
            try:
                self._load([name])
            except FileNotFoundError:  # compacted meanwhile
                continue
            except StoreError as error:
                reasons[name] = str(error)
        return reasons

    def _fold(self, names: list[str]) -> Fold:
        try:
            rows = self._distinct(self._joined(self._load(names)))
        except FileNotFoundError:  # another compaction was faster
            return Fold(0, 0, 0)
        self._write(rows, 1 + max(map(_generation, names)))
        self.files.remove(names)
        return Fold(len(names), 1, rows.num_rows)

    def _write(self, rows: Any, generation: int) -> str:
        from pyarrow import parquet

        buffer = BytesIO()
        doubles = [field.name for field in self.schema if _holds_doubles(field.type)]
        writing: Any = parquet.write_table  # its stub allows fewer kinds of options than it takes
        writing(
            rows.cast(self.schema),
            buffer,
            compression="zstd",
            # Split into bytes, numbers that came from half the width lose their zeros.
            use_byte_stream_split=[f"{name}.list.element" for name in doubles] or False,
            use_dictionary=[field.name for field in self.schema if field.name not in doubles],
        )
        name = posixpath.join(self.folder, f"{generation:03d}-{new_id()}.parquet")
        self.files.put(name, buffer.getvalue())
        return name

    def _settled(self, take: Callable[[Sequence[str]], _Result]) -> _Result:
        """Read what is listed, and list anew where a compaction went between."""
        import pyarrow

        for _ in range(_ATTEMPTS):
            try:
                return take(self.files.names(self.folder))
            except FileNotFoundError:
                continue
            except pyarrow.ArrowInvalid as error:
                raise StoreError(_damage(self.files.path(self.folder), error)) from error
        raise StoreError(
            f"{self.files.path(self.folder)} changed {_ATTEMPTS} times while it was read"
        )

    def _remembered(self, names: Sequence[str]) -> Any:
        fresh = [name for name in names if name not in self._tables]
        if self._rows is not None and not fresh and len(names) == len(self._tables):
            return self._rows
        known = self._tables | dict(zip(fresh, self._load(fresh), strict=True))
        self._tables = {name: known[name] for name in names}
        self._rows = self._distinct(self._joined(list(self._tables.values())))
        return self._rows

    def _joined(self, tables: list[Any]) -> Any:
        import pyarrow

        return pyarrow.concat_tables([self.schema.empty_table(), *tables])

    def _load(self, names: Sequence[str]) -> list[Any]:
        """Return the rows of each file."""
        import pyarrow
        from pyarrow import parquet

        tables = []
        for name, content in zip(names, self.files.read(names) if names else [], strict=True):
            try:
                found = parquet.ParquetFile(BytesIO(content)).read(use_threads=False)
                tables.append(found.select(self.schema.names).cast(self.schema))
            except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
                raise StoreError(_damage(self.files.path(name), error)) from error
        return tables

    def _dataset(self, names: Sequence[str]) -> Any:
        from pyarrow import dataset, fs

        system = (
            fs.LocalFileSystem()
            if self.files.local is not None
            else fs.PyFileSystem(fs.FSSpecHandler(self.files.fs))
        )
        form = dataset.ParquetFileFormat()
        pieces = [form.make_fragment(self.files.path(name), system) for name in names]
        return dataset.FileSystemDataset(pieces, self.schema, form, system)

    def _distinct(self, table: Any) -> Any:
        """Return the first of all rows of one key, in order of the keys."""
        if not table.num_rows:
            return table
        numbered = table.select(self.key).append_column("row of file", places(table.num_rows))
        first = numbered.group_by(self.key, use_threads=False).aggregate([("row of file", "min")])
        if first.num_rows == table.num_rows:
            return table
        by_key = [(name, "ascending") for name in self.key]
        return table.take(first.sort_by(by_key)["row of file_min"])


def _generation(name: str) -> int:
    number = posixpath.basename(name).partition("-")[0]
    return int(number) if number.isdigit() else 0


def _holds_doubles(kind: Any) -> bool:
    return str(kind).endswith("double>")


def _damage(path: str, error: Exception) -> str:
    return (
        f"{path} is damaged ({error}); `attnscope store repair` sets it aside and says which "
        "traces are to be listed anew"
    )
