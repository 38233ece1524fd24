"""`python -m tests.moto_server`: moto's own server whose conditional writes are decided one after the other.

moto looks at If-Match and If-None-Match in one moment and writes in another, and several threads may be between them:
now and then two of many win, which no bucket does.
"""

import functools
import threading
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

_put_object = S3Response.put_object
_deciding = threading.Lock()


@functools.wraps(_put_object)
def put_object(self: S3Response) -> Any:
    with _deciding:
        return _put_object(self)


if __name__ == "__main__":
    S3Response.put_object = put_object  # type: ignore[method-assign]
    main()
