"""What can go wrong with a collection; each message says which value was wrong and what to do."""

import errno


class CollectionError(ValueError):
    """Anything of a collection that a caller may want to catch."""


class CatalogueError(CollectionError):
    """A catalogue that can't be used, or a write that was not made."""


class CatalogueFull(CatalogueError):
    """The catalogue's disk took nothing of a write, most likely because it is full."""


class CatalogueBusy(CatalogueError):
    """Others wrote for so long that this write was not made; it may be tried again."""


class CatalogueReadOnly(CatalogueError):
    """The catalogue lies where this process may not write, or on a read-only disk; it can be read."""


class CatalogueGone(CatalogueError):
    """The catalogue was deleted or replaced while it was open: what is written now would be lost."""


class ItemError(CollectionError):
    """An item or its embedding that can't be stored as it is."""


class FilterError(CollectionError):
    """A filter that makes no sense."""


class IndexUnusable(CollectionError):
    """A base that is missing, damaged, or of another release."""


class CompactionError(CollectionError):
    """A base that could not be built; the one before stays in use."""


class ChangesForgotten(CollectionError):
    """The deletions asked for are no longer on record; start again from the base that the catalogue names."""


class SnapshotError(CollectionError):
    """A named snapshot that can't be saved or restored; the message has no path in it."""


def failed_to_write(error: OSError, what: str) -> CatalogueError:
    """What the system refused, as the error that says whether the disk is full or read-only."""
    kind: type[CatalogueError] = CatalogueError
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = CatalogueFull
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        kind = CatalogueReadOnly
    return kind(f"{what}: {error}")
