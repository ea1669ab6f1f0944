"""Files in a folder, zip or tar archive: their paths and their bytes. Nothing is unpacked to disk."""

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.members import MAX_REVISITS, Members, member_path, without_hidden_folders
from evaluation.images.reader.names import has_image_suffix, is_hidden, split_path

MAX_FILE_BYTES = 2**28  # size limit of an image file: Pillow's limit of 89 million pixels at three bytes each
UNPACKED_BYTES = 2**30  # unpacked size allowed for any archive; beyond it, UNPACKED_RATIO times the archive's size
UNPACKED_RATIO = 100
MAX_LINK_BYTES = 4096  # length of a path on Linux


class Files(NamedTuple):
    """Files of a folder or an archive.

    root: the folder or the archive.
    archive: whether it is an archive.
    paths: all files, relative to the root.
    read: yields (path, bytes) of the given paths, in the archive's order; a path that a tar holds several times is
        yielded each time, the one that counts last.
    """

    root: Path
    archive: bool
    paths: list[str]
    read: Callable[[Collection[str]], Iterator[tuple[str, bytes]]]

    def contents(self, paths: Collection[str]) -> dict[str, bytes]:
        """Reads some files at once, by path."""
        with read_errors(self.root):
            return dict(self.read(paths)) if paths else {}


def open_files(root: Path) -> Files:
    """Lists a folder, .zip or .tar(.gz, .bz2, .xz).

    Links are followed; in archives to members of the archive. Hidden folders are left out unless there are no images
    outside of them, and so are devices in archives.

    Raises:
        ReadError: no such path, another kind of file, a damaged archive, one that unpacks to far more than images, or
            one with links to files that it does not hold.
    """
    if root.is_dir():
        with read_errors(root):
            return Files(root, False, _folder_paths(root), partial(_read_folder, root))
    list_members, read = _find_kind(root)
    with read_errors(root):
        members = without_hidden_folders(list_members(root).follow())
    return Files(root, True, list(members), partial(_read_members, root, members, read))


_Read = Callable[[Path, Collection[str]], Iterator[tuple[str, bytes]]]


def _find_kind(root: Path) -> tuple[Callable[[Path], Members], _Read]:
    if not root.exists():
        raise ReadError(f"{root} does not exist; expected a folder of images, a .zip or a .tar archive")
    try:
        # tar first: zipfile also accepts other files with a zip archive at their end.
        if root.is_file() and tarfile.is_tarfile(root):
            return _tar_members, _read_tar
        if root.is_file() and zipfile.is_zipfile(root):
            return _zip_members, _read_zip
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ReadError(f"cannot read {root}: {error}") from error
    raise ReadError(f"{root} is neither a folder, a zip nor a tar archive, or it is damaged; {_way_out(root)}")


def _way_out(root: Path) -> str:
    if has_image_suffix((root.name,)):
        return f"give the folder of the images, {root.parent}"
    if root.suffix.lower() == ".npy":
        return "save the array with numpy.savez(FILE, images=array) and give FILE.npz"
    return "unpack an archive of another kind and give the folder, or get a damaged one again"


def _read_members(
    root: Path, members: dict[str, str], read: _Read, wanted: Collection[str]
) -> Iterator[tuple[str, bytes]]:
    paths = defaultdict[str, list[str]](list)
    for path in wanted:
        paths[members[path]].append(path)
    for member, data in read(root, paths):
        for path in paths[member]:
            yield path, data


@contextmanager
def read_errors(root: Path) -> Iterator[None]:
    """Context manager: turns errors of the archive libraries and the file system into ReadError."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        damaged = "" if root.is_dir() or isinstance(error, PermissionError) else "; it is damaged or incomplete"
        raise ReadError(f"cannot read {root}: {error}{damaged}") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile raises them for encryption and unknown compression
        raise ReadError(f"cannot read {root}: {error}") from error


def _folder_paths(root: Path) -> list[str]:
    """Lists the files outside of hidden folders; all files if no images are among them, for the error message."""
    paths = _walk(root, is_hidden)
    return paths if any(has_image_suffix(split_path(path)) for path in paths) else _walk(root, lambda name: False)


def _walk(root: Path, left_out: Callable[[str], bool]) -> list[str]:
    paths = []
    above = {str(root): frozenset({os.path.realpath(root)})}  # real paths of a folder and of those it was reached by
    known, revisits = set(above[str(root)]), 0
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
        entered = []
        for name in sorted(subfolders):
            place = os.path.join(folder, name)  # noqa: PTH118  as os.walk does
            real = os.path.realpath(place)
            if left_out(name) or real in above[folder]:
                continue
            revisits += real in known
            if revisits > MAX_REVISITS:
                raise ReadError(f"{root}: the folders link to each other, {place} among them; remove the links")
            known.add(real)
            above[place] = above[folder] | {real}
            entered.append(name)
        subfolders[:] = entered
        paths += [Path(folder, name).relative_to(root).as_posix() for name in files]
    return paths


def _raise(error: OSError) -> None:
    raise error


def _read_folder(root: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    for path in wanted:
        file = Path(root, path)
        if file.is_symlink() and not file.exists():
            raise ReadError(f"{file}: a link to {file.readlink()}, which does not exist; remove the link, or mend it")
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ReadError(f"{file}: a pipe, a device or a folder, expected an image file; remove it")
        _check_file_size(str(file), status.st_size)
        yield path, file.read_bytes()


def _check_file_size(where: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ReadError(f"{where}: {size:,} bytes, expected a file of at most {MAX_FILE_BYTES:,}; leave it out")


def _check_unpacked(root: Path, size: int) -> None:
    """Raises ReadError for a decompression bomb: an archive that unpacks to far more bytes than images can."""
    packed = root.stat().st_size
    if size > max(UNPACKED_BYTES, UNPACKED_RATIO * packed):
        raise ReadError(
            f"{root} has {packed:,} bytes and unpacks to {size:,} or more, expected at most "
            f"{UNPACKED_RATIO} times as many; unpack it into a folder if that is intended"
        )


def _zip_members(root: Path) -> Members:
    members = Members(root)
    with zipfile.ZipFile(root) as archive:
        _check_unpacked(root, sum(info.file_size for info in archive.infolist()))
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.filename.endswith(("/", "\\")):
                members.add_folder(info.filename)
            elif kind == stat.S_IFLNK and info.file_size <= MAX_LINK_BYTES:
                members.add_link(info.filename, os.fsdecode(archive.read(info)))
            elif kind in (0, stat.S_IFREG):
                members.add_file(info.filename)
    return members


def _read_zip(root: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(root) as archive:
        infos = {member_path(info.filename): info for info in archive.infolist()}
        for path in wanted:
            _check_file_size(f"{root}: {path}", infos[path].file_size)
            yield path, archive.read(infos[path])


def _tar_members(root: Path) -> Members:
    members, size = Members(root), 0
    with tarfile.open(root) as archive:
        for member in archive:
            size += member.size
            _check_unpacked(root, size)
            if member.isreg():
                members.add_file(member.name)
            elif member.isdir():
                members.add_folder(member.name)
            elif member.islnk() or member.issym():
                members.add_link(member.name, member.linkname, hard=member.islnk())
        # tarfile takes a truncated header for the end of the archive; a complete archive ends with a block of zeros.
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without a closing block of zeros")
        while rest := archive.fileobj.read(2**20):  # compressed formats verify their checksum at the very end
            size += len(rest)
            _check_unpacked(root, size)
    return members


def _read_tar(root: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Reads in the archive's order, because seeking in compressed data is slow."""
    with tarfile.open(root) as archive:
        for member in archive:
            if member.isreg() and (path := member_path(member.name)) in wanted:
                _check_file_size(f"{root}: {path}", member.size)
                file = archive.extractfile(member)
                assert file is not None
                yield path, file.read()
