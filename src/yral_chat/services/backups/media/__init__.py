"""Media in a second place: copied, verified by hash, brought back."""

from yral_chat.services.backups.media.failures import Finding, MediaBackupFailed
from yral_chat.services.backups.media.service import MediaBackup, Summary

__all__ = ["Finding", "MediaBackup", "MediaBackupFailed", "Summary"]
