"""``clrelkt push`` and ``clrelkt pull``: encoders to and from a model hub."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["pull", "push"]


@click.command()
@click.argument("encoder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("repository")
@click.option("--private", is_flag=True, help="Make a repository that others do not see.")
@click.option("-m", "--message", help="Of the commit.")
def push(encoder: Path, repository: str, private: bool, message: str | None) -> None:
    """Upload the folder ENCODER, saved or exported, to REPOSITORY (OWNER/NAME) of a model hub.

    Who you are and which hub it is are huggingface_hub's settings: hf auth login, HF_ENDPOINT.
    """
    from clrelkt.sharing.hub import push as upload

    click.echo(upload(encoder, repository, private=private, message=message))


@click.command()
@click.argument("repository")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the encoder. [default: the repository's NAME in the current folder]",
)
@click.option("--revision", help="A branch, tag or commit. [default: the newest]")
def pull(repository: str, output: Path | None, revision: str | None) -> None:
    """Download the encoder of REPOSITORY (OWNER/NAME) from a model hub.

    Only files that cannot carry code are taken.
    """
    from clrelkt.sharing.hub import pull as download

    folder = output or Path(repository.rstrip("/").rsplit("/", 1)[-1])
    download(repository, folder, revision=revision)
    click.echo(str(folder))
