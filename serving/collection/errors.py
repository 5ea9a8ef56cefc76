"""What can go wrong with a collection, by name; each message says which value it was and what to do."""


class CollectionError(ValueError):
    """Anything of this package that a caller may want to catch."""


class CatalogueError(CollectionError):
    """A catalogue that can't be used, or a write that did not happen."""


class ItemError(CollectionError):
    """An item or its embedding that can't be stored as it is."""


class FilterError(CollectionError):
    """A filter that means nothing."""


class IndexUnusable(CollectionError):
    """A base that is missing, damaged, or of another release."""


class CompactionError(CollectionError):
    """A base that could not be built; the one before stays in use."""


class ChangesForgotten(CollectionError):
    """The deletions asked for are no longer on record: start again from the base that the catalogue names."""


class SnapshotError(CollectionError):
    """A named snapshot that can't be saved or restored; the message has no path in it."""
