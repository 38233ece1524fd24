"""Files that people send and personas make."""

from yral_chat.services.media.service import MediaService, UploadResult

__all__ = ["MediaService", "UploadResult"]
