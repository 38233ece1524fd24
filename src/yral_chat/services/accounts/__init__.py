"""What people may take along and have erased (contract section 14)."""

from yral_chat.services.accounts.service import AccountService

__all__ = ["AccountService"]
