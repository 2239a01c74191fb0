"""``clrelkt completion``: completion for bash, zsh and fish."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: clrelkt completion bash > ~/.local/share/bash-completion/completions/clrelkt
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root().command
    click.echo(kind(root, {}, "clrelkt", "_CLRELKT_COMPLETE").source())
