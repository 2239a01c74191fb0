"""``clrelkt export``: an encoder in a form that other tools open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from clrelkt.encoders import Encoder
    from clrelkt.sharing import ExportCheck, ExportChecker, ExportForm

__all__ = ["export", "measure_exports"]

_FORMS = (
    "sentence-transformers",
    "onnx",
    "onnx-int8",
    "safetensors-fp16",
    "delta-int8",
    "delta-int6",
    "delta-int4",
)

_corpus_option = click.option(
    "--corpus",
    default="bundled",
    show_default=True,
    help="Compare export and original on this corpus's questions and passages.",
)
_split_option = click.option(
    "--split",
    type=click.Choice(["train", "dev", "test", "all"]),
    default="all",
    show_default=True,
    help="Which questions.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@click.argument("encoder")
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice((*_FORMS, "package")),
    help="What it is exported to.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the export.",
)
@click.option("--name", help="For a package: what load_encoder is to call the encoder.")
@click.option("--package-version", default="1.0.0", show_default=True, help="Of a package.")
@click.option(
    "--bits",
    type=click.Choice(["4", "6", "8"]),
    default="6",
    show_default=True,
    help="How many bits a number of a package has.",
)
@click.option(
    "--licence", default="Apache-2.0", show_default=True, help="Of a package: an SPDX expression."
)
@_corpus_option
@_split_option
@click.option("--no-check", is_flag=True, help="Do not compare the export with the original.")
@_json_option
def export(
    encoder: str,
    form: Any,
    output: Path,
    name: str | None,
    package_version: str,
    bits: str,
    licence: str,
    corpus: str,
    split: Any,
    no_check: bool,
    as_json: bool,
) -> None:
    """Write ENCODER in a form that other tools open, and say what that form has kept.

    sentence-transformers: a folder that SentenceTransformer opens, with clrelkt or without. onnx,
    onnx-int8: a graph that onnxruntime runs without PyTorch. Transformers can be exported to these
    three, mUSE to all. safetensors-fp16: clrelkt's own form
    in half the size. delta-int8, -int6, -int4: what differs from the published encoder that it
    started from, in so many bits a number. package: such a delta as a Python package, which pip
    builds and installs; --name is then a name that clrelkt knows.

    A model card (README.md) in ENCODER's folder goes with it. The export is opened again with the
    tool that it is for, and its vectors, hit rate and speed are shown beside the original's.
    """
    from rich.console import Console

    from clrelkt.encoders import load_encoder
    from clrelkt.sharing import PackageSettings, export_encoder
    from clrelkt.sharing.exports import CARD_FILE
    from clrelkt.sharing.package import encoder_folder, write_package
    from clrelkt.sharing.tables import check_table, size_and_speed

    if (form == "package") != (name is not None):
        raise click.UsageError("--to package needs a --name, and --name is for packages")
    card_file = Path(encoder) / CARD_FILE
    card = card_file.read_text(encoding="utf-8") if card_file.is_file() else None
    loaded = load_encoder(encoder)
    # Before the export: a corpus that is not there costs no time then.
    checker = None if no_check else _checker(loaded, corpus, split)
    written, opened = output, form
    if name is not None:
        settings = PackageSettings(name, package_version, cast("Any", int(bits)), card, licence)
        write_package(loaded, output, settings)
        written, opened = encoder_folder(output, settings), f"delta-int{bits}"
    else:
        export_encoder(loaded, output, form, card=card)
    if checker is None:
        click.echo(json.dumps({"folder": str(output), "form": form}) if as_json else f"{output}")
        return
    found = _checked(checker, written, opened)
    if as_json:
        click.echo(json.dumps({"folder": str(output), **found.to_json()}, indent=1))
        return
    Console().print(check_table(found))
    click.echo(f"{output}: {size_and_speed(found)}")


@click.command("exports")
@click.argument("encoder")
@click.option(
    "--to",
    "forms",
    multiple=True,
    type=click.Choice(_FORMS),
    help="Only this form. Can be given repeatedly. [default: all that it can have]",
)
@_corpus_option
@_split_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the record to this JSON file.",
)
@_json_option
def measure_exports(
    encoder: str,
    forms: tuple[Any, ...],
    corpus: str,
    split: Any,
    output: Path | None,
    as_json: bool,
) -> None:
    """Export ENCODER to every form, and show what each has kept, its size and its speed.

    The exports are thrown away; clrelkt export makes one to keep.
    """
    import tempfile

    from rich.console import Console

    from clrelkt.encoders import MuseEncoder, load_encoder
    from clrelkt.files import write_json
    from clrelkt.sharing import EXPORT_FORMS, TRANSFORMER_FORMS, export_encoder
    from clrelkt.sharing.tables import exports_table
    from clrelkt.training.environment import describe_environment

    loaded = load_encoder(encoder)
    checker = _checker(loaded, corpus, split)
    checks = []
    with tempfile.TemporaryDirectory() as scratch:
        own = EXPORT_FORMS if isinstance(loaded, MuseEncoder) else TRANSFORMER_FORMS
        for form in forms or own:
            folder = Path(scratch) / form
            export_encoder(loaded, folder, form)
            checks.append(_checked(checker, folder, form))
    chosen = "".join(f" --to {form}" for form in forms)
    record = {
        "kind": "exports",
        "command": f"clrelkt measure exports {encoder}{chosen} --corpus {corpus} --split {split}",
        "encoder": loaded.name,
        "weights": loaded.weights,
        "environment": describe_environment(),
        "exports": [check.to_json() for check in checks],
    }
    if output is not None:
        write_json(output, record)
    if as_json:
        click.echo(json.dumps(record, ensure_ascii=False, indent=1))
    else:
        Console().print(exports_table(checks, loaded.name))


def _checker(encoder: Encoder, corpus: str, split: Any) -> ExportChecker:
    from clrelkt.corpora import load_corpus, take_split
    from clrelkt.evaluation import EvaluationSettings
    from clrelkt.sharing import ExportChecker

    questions = take_split(load_corpus(corpus), split)
    return ExportChecker(encoder, questions, EvaluationSettings("passage"))


def _checked(checker: ExportChecker, folder: Path, form: ExportForm) -> ExportCheck:
    from clrelkt.sharing import open_export

    return checker(open_export(folder, form), form, folder)
