"""python -m yral_chat.cli"""

from yral_chat.cli import app

app()
