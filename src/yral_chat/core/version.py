"""The name and the version of this program, as it was installed."""

from importlib.metadata import version

SERVICE_NAME = "Yral AI Chat"
VERSION = version("yral-chat")
