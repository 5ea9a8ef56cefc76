"""What a client raises, for commands that name it before they import the client itself, which takes a moment."""


class ServerError(RuntimeError):
    """The server refused a request or could not be reached; `status` is 0 for the latter.

    `again`: the same request may succeed if it is sent again, as the server's queue was full or its disk busy, or the
    worker that had the request died. In the last case a write may have been made; made again, it changes nothing.
    """

    def __init__(self, message: str, status: int, *, again: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.again = again
