"""`coordd token`: makes a bearer token, and the line of the configuration by which the daemon knows it."""

import secrets

import click

from coordd.access import TOKEN_BYTES, fingerprint, spell_token

__all__ = ["token"]


@click.command()
@click.argument("name", default="NAME")
def token(name: str) -> None:
    """Make a token for the identity NAME.

    The token goes to stdout, once: it is kept nowhere. What belongs in coordd.toml goes to stderr.

    \b
      umask 077 && coordd token bots >bots.token
    """  # noqa: D301 - click's own sign for lines to leave alone, a control character
    made = spell_token(secrets.token_bytes(TOKEN_BYTES))
    click.echo(made)
    click.echo(f'[identities.{name}]\ntoken_sha256 = ["{fingerprint(made)}"]', err=True)
