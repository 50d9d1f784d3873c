"""Files of a folder under a prefix of the URLs.

    class Shop:
        name = "shop"
        assets = Static("/assets", "assets", max_age=3600)

Whatever a URL says, only files inside the folder are served: symbolic links that lead out of it are not, and neither
are names that begin with a dot. Clients that have a file are answered 304, may ask for parts of it, and get it
compressed, as ``finishing`` does it.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable
from stat import S_ISDIR, S_ISREG
from typing import Any
from urllib.parse import quote

from werkzeug.exceptions import NotFound
from werkzeug.http import http_date
from werkzeug.security import safe_join
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from txservices.exceptions import ConfigurationError
from txservices.web.conditional import PIECE, Stored, StoredFile
from txservices.web.cors import Cors
from txservices.web.finishing import finishing_of
from txservices.web.messages import HttpRequest
from txservices.web.places import Place
from txservices.web.received import Received

__all__ = ["Static"]

WELL_KNOWN = ".well-known"  # RFC 8615: the one name with a dot that is meant for clients
TYPES = {  # as browsers want them; what the system has in /etc/mime.types may be older
    ".avif": "image/avif",
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


class Static(Place):
    """Serves the files of a folder.

    Args:
        url: the prefix, as ``/assets``.
        path: the folder. A relative path is from where the process runs.
        index: the name of the file that is served for a folder; None if there is none, which is answered 404.
        max_age: seconds for which a client need not ask again whether a file has changed. Without it, it asks each
            time, which costs no more than a 304.
        cors: which pages of other origins may use it, in place of ``WEB_CORS``; False for none.
        compress: whether ``WEB_COMPRESS_FROM`` is for these, too.
        auth: who may have them: see ``auth``.
    """

    method = "GET"

    def __init__(
        self,
        url: str,
        path: str | os.PathLike[str],
        index: str | None = "index.html",
        max_age: int | None = None,
        cors: Cors | bool | None = None,
        compress: bool = True,
        auth: Callable[[HttpRequest], Any] | None = None,
    ) -> None:
        super().__init__(url, auth)
        self.path = path
        self.index = index
        self.max_age = max_age
        self.cors = cors
        self.compress = compress

    def setup(self) -> None:
        self.root = os.path.realpath(self.path)
        if not os.path.isdir(self.root):
            raise ConfigurationError(f"{self.where}: {os.fspath(self.path)!r} is no folder")
        self.finishing = finishing_of(self.container.config, self.cors, True, self.compress)
        super().setup()

    def serve_below(self, received: Received, request: HttpRequest, path: str) -> None:
        file = self.open(path)
        if file is None:  # a folder without a slash: pages in it name their files from there on
            query = request.query_string.decode("latin-1")
            location = quote(f"{self.prefix}/{path.strip('/')}".rstrip("/") + "/") + ("?" + query if query else "")
            self.send(redirect(location, 308), received)
            return
        self.send(self.response(request, *file), received)

    def open(self, path: str) -> tuple[int, str] | None:
        """The number of an open file, and its name. None for a folder without a slash; ``NotFound`` for no file."""
        parts = path.split("/")
        if any(part.startswith(".") and part != WELL_KNOWN for part in parts) or "\0" in path:
            raise NotFound()
        joined = safe_join(self.root, path.lstrip("/"))
        if joined is None:
            raise NotFound()
        try:
            real = os.path.realpath(joined)
            if not self.is_inside(real):
                raise NotFound()
            is_folder = S_ISDIR(os.stat(real).st_mode)
            if is_folder:
                if self.index is None:
                    raise NotFound()
                real = os.path.realpath(os.path.join(real, self.index))
                if not self.is_inside(real) or not os.path.isfile(real):
                    raise NotFound()
                if not path.endswith("/"):
                    return None
            elif path.endswith("/"):
                raise NotFound()
            number = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # to open a pipe would wait
        except (OSError, ValueError):
            raise NotFound() from None
        if not S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise NotFound()
        return number, real

    def is_inside(self, real: str) -> bool:
        return os.path.commonpath([self.root, real]) == self.root

    def response(self, request: HttpRequest, number: int, name: str) -> Response:
        file = os.fdopen(number, "rb")
        about = os.fstat(number)
        response = Response(
            headers={
                "Content-Type": type_of(name),
                "ETag": f'"{about.st_mtime_ns:x}-{about.st_size:x}"',
                "Last-Modified": http_date(about.st_mtime),
                "Cache-Control": "no-cache" if self.max_age is None else f"public, max-age={self.max_age}",
                "X-Content-Type-Options": "nosniff",
            }
        )
        if about.st_size <= PIECE:
            with file:
                stored = Stored(file.read())
            response.response = [stored.body]
        else:
            stored = StoredFile(file)
            stored.put_into(response)
            response.call_on_close(file.close)
        assert self.finishing is not None, "it is conditional"
        return self.finishing.finish(request, response, stored)


def type_of(name: str) -> str:
    """The media type of a file, by its name."""
    known = TYPES.get(os.path.splitext(name)[1].lower())
    if known is None:
        known, packed = mimetypes.guess_type(name)
        if known is None or packed is not None:  # a .tar.gz is an archive, and not an archive to unpack on the way
            known = "application/octet-stream"
    return f"{known}; charset=utf-8" if known.startswith("text/") else known
