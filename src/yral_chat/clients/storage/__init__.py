"""Where media are kept: a local folder or an S3 bucket."""

from yral_chat.clients.storage.keys import MEDIA_TYPES, PUBLIC, is_key, media_type, owner_prefix
from yral_chat.clients.storage.local import LocalFile
from yral_chat.clients.storage.s3 import RemoteFile
from yral_chat.clients.storage.service import StorageService, load_signing_key

__all__ = [
    "MEDIA_TYPES",
    "PUBLIC",
    "LocalFile",
    "RemoteFile",
    "StorageService",
    "is_key",
    "load_signing_key",
    "media_type",
    "owner_prefix",
]
