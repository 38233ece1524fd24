"""Yral AI Chat: conversations with AI personas."""
