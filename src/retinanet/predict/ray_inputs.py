"""Divide the inputs of a Ray job into shards: images, folders, lists and Parquet files, also in object stores.

pyarrow and fsspec are installed by the extra `scale`.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from retinanet.config import PredictConfig
from retinanet.errors import UserError
from retinanet.files import atomic_path, text_encoding, valid_text
from retinanet.formats.folder_walk import walk
from retinanet.images import IMAGE_SUFFIXES
from retinanet.predict.batches import batched

if TYPE_CHECKING:
    import pyarrow as pa

INPUTS: Final = "inputs.parquet"
"""File in the output folder that lists the paths of all images that are not in a Parquet file of the user."""
LIST_SUFFIXES: Final = {".txt", ".lst"}
IMAGE_COLUMNS: Final = ("bytes", "image", "content")
"""Names of Parquet columns with encoded images: binary, or structs with the field `bytes` as in Hugging Face datasets.
"""
PATH_COLUMNS: Final = ("path", "file_name", "uri", "url")
"""Names of Parquet columns with paths or addresses of images."""

_logger = logging.getLogger(__name__)


class Shard(TypedDict):
    """A range of rows in one row group of a Parquet file of inputs."""

    number: int  # of the shard, from 0
    first: int  # number of the first image, over all shards
    file: str  # Parquet file
    group: int  # row group
    offset: int  # first row in the row group
    rows: int  # number of rows
    column: str  # name of the column with images or paths
    base: str  # folder of relative paths in the column


def divide_into_shards(inputs: Sequence[str], config: PredictConfig) -> tuple[list[Shard], str]:
    """Return all shards, and a SHA-256 of all image paths and of the names and sizes of the Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths, tables = _find_inputs(inputs)
    digest = hashlib.sha256()
    files = [(table, table.rpartition("/")[0]) for table in tables]  # with the folder of relative paths inside
    if paths:
        target = config.folder.output / INPUTS
        with atomic_path(target) as partial, pq.ParquetWriter(partial, pa.schema([("path", pa.string())])) as writer:
            for part in batched(paths, config.shard_size):
                writer.write_table(pa.table({"path": part}), row_group_size=config.shard_size)
                digest.update("".join(f"{path}\n" for path in part).encode())
        files.insert(0, (str(target.resolve()), ""))
    for table in tables:
        system, inner = file_system(table)
        digest.update(f"{table} {system.size(inner)}".encode())
    shards: list[Shard] = []
    first = 0
    for name, base in files:
        system, inner = file_system(name)
        with system.open(inner, "rb") as file:
            metadata = pq.read_metadata(file)
        column = _find_column(name, metadata.schema.to_arrow_schema())
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            for offset in range(0, rows, config.shard_size):
                size = min(config.shard_size, rows - offset)
                shard = Shard(
                    number=len(shards),
                    first=first,
                    file=name,
                    group=group,
                    offset=offset,
                    rows=size,
                    column=column,
                    base=base,
                )
                shards.append(shard)
                first += size
    return shards, digest.hexdigest()


def _find_inputs(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths or addresses of the images, and those of the Parquet files: sorted, each once."""
    paths: set[str] = set()
    tables: set[str] = set()
    for entry in inputs:
        for name in _find_files(entry):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - the name may be an address
            if suffix == ".parquet":
                tables.add(name)
            elif suffix in LIST_SUFFIXES and name == _absolute(entry):
                system, inner = file_system(name)
                content = system.cat_file(inner)
                lines = content.decode(text_encoding(content)).splitlines()
                base = name.rpartition("/")[0]
                paths.update(join_path(base, line.strip()) for line in lines if line.strip())
            elif suffix in IMAGE_SUFFIXES:
                paths.add(name)
            elif name == _absolute(entry):
                raise UserError(f"{entry}: expected an image, a folder, a list (.txt) or a .parquet file")
    if not paths and not tables:
        raise UserError(f"{', '.join(inputs)}: expected images or .parquet files, found none")
    return sorted(map(valid_text, paths)), sorted(tables)


def _find_files(entry: str) -> list[str]:
    """Return the files at or below a path or an address."""
    system, inner = file_system(entry)
    if "://" not in entry and Path(entry).is_dir():
        searched = walk(Path(entry), IMAGE_SUFFIXES | {".parquet"})
        for sentence in searched.left_out.sentences():
            _logger.warning("%s: %s", entry, sentence)
        return [_absolute(str(path)) for path in searched.files]
    try:
        if system.isfile(inner):
            return [_absolute(entry)]
        found = system.find(inner) if not any(c in inner for c in "*?[") else system.glob(inner)
    except OSError as error:
        raise UserError(f"{entry}: {error}") from error
    if not found:
        raise UserError(f"no such file or folder, or an empty folder: {entry}")
    return [str(system.unstrip_protocol(name)) if "://" in entry else str(name) for name in found]


def file_system(name: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or an address, and the name inside that file system."""
    import fsspec

    try:
        system, inner = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:  # unknown protocol, or its package is not installed
        raise UserError(f"{name}: {error}") from error
    return system, str(inner)


def _absolute(name: str) -> str:
    return name if "://" in name else os.path.abspath(name)  # noqa: PTH100 - resolve() would follow links


def join_path(base: str, name: str) -> str:
    """Return the path or address of a list entry. Relative paths start in the folder `base` of the list."""
    return name if "://" in name or os.path.isabs(name) or not base else f"{base}/{name}"  # noqa: PTH117


def _find_column(table: str, schema: pa.Schema) -> str:
    """Return the column with encoded images or paths. Raises `UserError` if there is none."""
    import pyarrow as pa

    for name in IMAGE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    for name in PATH_COLUMNS:
        if name in schema.names and (
            pa.types.is_string(schema.field(name).type) or pa.types.is_large_string(schema.field(name).type)
        ):
            return name
    raise UserError(
        f"{table}: expected a column of encoded images ({', '.join(IMAGE_COLUMNS)}) or of paths "
        f"({', '.join(PATH_COLUMNS)}), found {', '.join(schema.names)}"
    )
