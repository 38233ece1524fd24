"""yral-chat token and chat: to be somebody, and to talk."""

from typing import Annotated

import typer

from yral_chat.cli.running import load_settings, operating, run, saying_why, stop


def token(
    user_id: Annotated[str, typer.Argument(help="Whose token: any name.")] = "me",
    ttl_seconds: Annotated[int, typer.Option(min=1, max=86400, help="How long it is good.")] = 3600,
    anonymous: Annotated[bool, typer.Option(help="Mark the user as anonymous.")] = False,
) -> None:
    """Print a token of the development issuer (development and test only)."""
    from yral_chat.clients.identity import MAX_SUBJECT_CHARACTERS, issue_dev_token, load_dev_secret

    settings = load_settings()
    if not 1 <= len(user_id.strip()) <= MAX_SUBJECT_CHARACTERS:
        stop(f"A user id has 1 to {MAX_SUBJECT_CHARACTERS} characters.")
    with saying_why(settings, ValueError):
        secret = load_dev_secret(settings)
    if secret is None:
        stop(f"In {settings.environment} tokens come from AUTH_ISSUERS; this command is for development and test.")
    typer.echo(issue_dev_token(secret, settings.auth_dev_issuer, user_id, ttl_seconds, anonymous)[0])


def chat(
    persona: Annotated[str | None, typer.Argument(help="Name or id of a persona; asked for when absent.")] = None,
    url: Annotated[str | None, typer.Option(help="A running server; by default the configured address.")] = None,
    user_id: Annotated[str, typer.Option("--user", help="Who talks.")] = "me",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Say this, print the reply, end.")] = None,
    given_token: Annotated[
        str | None, typer.Option("--token", envvar="YRAL_CHAT_TOKEN", help="A token to use.")
    ] = None,
) -> None:
    """Talk to a persona in the terminal: with a running server, or without one by itself."""
    from yral_chat.terminal import talk

    with operating() as settings:
        try:
            run(talk(settings, persona=persona, url=url, user_id=user_id, message=message, token=given_token))
        except KeyboardInterrupt:
            typer.echo()
