"""yral-chat: serve, migrate, token, chat, doctor, log-level, restore; jobs …, backup ….

Every command imports what it needs when it runs: whoever asks for a token does not wait for the service to load.
"""

import signal

import typer

from yral_chat.cli import backups, jobs, people, restores, service

# Inherited as ignored, it would make every end of a program that we start look like a success.
if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)

app = typer.Typer(
    help="Yral AI Chat: conversations with AI personas.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they show source code to people who want to know what to do
)

app.command()(service.serve)
app.command()(service.migrate)
app.command()(people.token)
app.command()(people.chat)
app.command()(service.doctor)
app.command("log-level")(service.log_level)
app.command()(restores.restore)
app.add_typer(backups.app, name="backup")
app.add_typer(jobs.app, name="jobs")
