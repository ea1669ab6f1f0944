"""Members of an archive by the paths they are unpacked to, with the links between them followed."""

import posixpath
from collections import defaultdict
from itertools import takewhile
from pathlib import Path

from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.names import is_hidden, is_visible, split_path

MAX_LINKS = 40  # links in one path, as in Linux
MAX_REVISITS = 1000  # links to folders that were read before; more of them would multiply without end
AGAIN = "make the archive again with tar -h or with zip without -y, which store files in place of links"


def member_path(name: str) -> str:
    """Returns the path that a member is unpacked to, as tar does: without `.`, and without `/` or `..` in front."""
    return "/".join(part for part in _normalized(name).split("/") if part not in ("", ".", ".."))


def _normalized(name: str) -> str:
    return posixpath.normpath(name.replace("\\", "/"))


class Members:
    """Files, folders and links of an archive; of members with one path the last counts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = dict[str, None]()
        self.folders = set[str]()
        self.links = dict[str, str]()  # targets relative to the link's folder, or from the archive's root with a slash
        self._spellings = dict[str, str]()

    def add_file(self, name: str) -> None:
        """Adds a regular file."""
        path = self._path(name)
        self.links.pop(path, None)
        self.files[path] = None

    def add_folder(self, name: str) -> None:
        """Adds a folder, which may be empty."""
        self.folders.add(member_path(name))

    def add_link(self, name: str, target: str, *, hard: bool = False) -> None:
        """Adds a symbolic link, or a hard link, whose target is a member's name."""
        path = self._path(name)
        if hard and member_path(target) == path:  # tar stores a file that it is given twice as a link to itself
            return
        self.files.pop(path, None)
        self.links[path] = f"/{member_path(target)}" if hard else target

    def _path(self, name: str) -> str:
        path, spelling = member_path(name), _normalized(name)
        if self._spellings.setdefault(path, spelling) != spelling:
            raise ReadError(
                f"{self.root} holds {self._spellings[path]} and {spelling}, one file when unpacked; "
                "make the archive again from inside a folder that holds all images"
            )
        return path

    def follow(self) -> dict[str, str]:
        """Returns the members that hold the bytes of all files by path, files behind links included.

        Links to folders that enclose them are left out.

        Raises:
            ReadError: a link whose target is not in the archive, or links that multiply without end.
        """
        if not self.links:
            return {path: path for path in self.files}
        children = self._children()
        found, revisits = dict[str, str](), 0
        pending = [("", "", frozenset({""}))]  # a folder's path, the same without links, and such paths of all above
        while pending:
            shown, folder, above = pending.pop()
            for name in sorted(children[folder]):
                path, place = posixpath.join(shown, name), posixpath.join(folder, name)
                real = self._resolve(place) if place in self.links else place
                if real in self.files:
                    found[path] = real
                elif real not in children:
                    self._check_missing(path, self.links.get(place, ""))
                elif real not in above:
                    revisits += place in self.links
                    self._check_revisits(revisits, path)
                    pending.append((path, real, above | {real}))
        return found

    def _children(self) -> dict[str, set[str]]:
        """Returns the names in each folder."""
        children = defaultdict[str, set[str]](set)
        children[""] = set()
        for path in (*self.files, *self.links, *self.folders):
            folder, name = posixpath.split(path)
            while name and name not in children[folder]:
                children[folder].add(name)
                folder, name = posixpath.split(folder)
        for folder in self.folders:
            children[folder] |= set()
        return dict(children)

    def _resolve(self, path: str) -> str:
        """Returns a path without links; empty if there are too many, or the root."""
        done, rest, followed = "", path.split("/")[::-1], 0
        while rest:
            name = rest.pop()
            place = posixpath.join(done, name)
            if name == "..":
                done = posixpath.dirname(done)
            elif place in self.links:
                followed += 1
                if followed > MAX_LINKS:
                    return path
                target = self.links[place].replace("\\", "/")
                done = "" if target.startswith("/") else done
                rest += target.split("/")[::-1]
            elif name not in ("", "."):
                done = place
        return done

    def _check_missing(self, path: str, target: str) -> None:
        if is_visible(split_path(path)):
            raise ReadError(f"{self.root}: {path}: a link to {target}, which is not in the archive; {AGAIN}")

    def _check_revisits(self, revisits: int, path: str) -> None:
        if revisits > MAX_REVISITS:
            raise ReadError(f"{self.root}: the folders link to each other, {path} among them; remove the links")


def without_hidden_folders(members: dict[str, str]) -> dict[str, str]:
    """Drops the folders that enclose everything up to a hidden one: an archive of `.cache/images` holds images."""
    folders = [path.split("/")[:-1] for path in members]
    ends = zip(min(folders), max(folders), strict=False) if folders else ()
    enclosing = [one for one, _ in takewhile(lambda names: names[0] == names[1], ends)]
    hidden = max((depth for depth, name in enumerate(enclosing, 1) if is_hidden(name)), default=0)
    return {"/".join(path.split("/")[hidden:]): member for path, member in members.items()}
