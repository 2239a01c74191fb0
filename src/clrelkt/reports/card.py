"""Model cards: what an encoder is, where it came from, how good it is, and what it is not for.

A card is ``README.md`` in the encoder's folder, with the front matter that the Hugging Face Hub
reads (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from clrelkt.corpora.catalogue import CatalogueEntry, catalogue_entry
from clrelkt.encoders import PUBLISHED
from clrelkt.errors import UnknownNameError
from clrelkt.evaluation import METRICS, Results
from clrelkt.evaluation.seeds import SeedSummary
from clrelkt.reports.language_names import language_name
from clrelkt.reports.run_folder import FinishedRun
from clrelkt.reports.tables import estimate_cell, group_label
from clrelkt.training.recipe import BASELINE, ZERO_SHOT, Contrastive, Stage

__all__ = ["GENERATED", "model_card"]

GENERATED = "<!-- Made by clrelkt. Take this line out to keep your own changes. -->"
"""A card with this line is written anew; one without it is left alone."""

_HUB_METRICS: Mapping[str, str] = MappingProxyType(
    {"hit_rate@1": "cosine_accuracy@1", "mrr@10": "cosine_mrr@10"}
)
_HUB_DATASETS: Mapping[str, str] = MappingProxyType(
    {"xquad": "google/xquad", "mlqa": "facebook/mlqa"}
)
_PAPER = (
    "Limkonchotiwat et al.: CL-ReLKT: Cross-lingual Language Knowledge Transfer for Multilingual "
    "Retrieval Question Answering. Findings of NAACL 2022. "
    "https://aclanthology.org/2022.findings-naacl.165/"
)
_BASE_PAPER = (
    "Yang et al.: Multilingual Universal Sentence Encoder for Semantic Retrieval. ACL 2020 "
    "(demonstrations)."
)


def model_card(run: FinishedRun, stage_name: str) -> str:
    """Return the card of the encoder that a stage of a complete run kept.

    Raises:
        UnknownNameError: the run has no such stage.
    """
    card = _Card(run, run.recipe.stage(stage_name))
    parts = [
        f"---\n{card.front_matter()}---",
        GENERATED,
        f"# {card.name}",
        card.summary(),
        card.usage(),
        card.results(),
        card.training(),
        card.limits(),
        card.licences(),
        card.origin(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


class _Card:
    def __init__(self, run: FinishedRun, stage: Stage) -> None:
        self._run = run
        self._stage = stage
        self._result: Results | None = run.results.get(stage.name)
        self._corpus = _known_corpus(run.corpus)
        self.name = f"{run.recipe.name}, {stage.name}"

    def _chain(self) -> list[Stage]:
        """Return the stages that led to this one, itself last."""
        return list(self._run.recipe.up_to(self._stage.name).stages)

    def _trained_languages(self) -> list[str]:
        codes = [
            code
            for stage in self._chain()
            for code in self._run.recipe.stage_languages(stage, self._run.languages)
        ]
        return list(dict.fromkeys(codes))

    def front_matter(self) -> str:
        """Return YAML; texts are written as JSON, which YAML reads as they are."""
        values: dict[str, Any] = {
            "language": self._trained_languages(),
            "license": "apache-2.0" if self._base_is_published() else "unknown",
            "library_name": "sentence-transformers",
            "pipeline_tag": "sentence-similarity",
            "tags": [
                "clrelkt",
                "cross-lingual-retrieval",
                "question-answering",
                "sentence-transformers",
                "feature-extraction",
            ],
            "metrics": list(_HUB_METRICS.values()),
        }
        if self._run.corpus in _HUB_DATASETS:
            values["datasets"] = [_HUB_DATASETS[self._run.corpus]]
        if self._result is not None:
            values["model-index"] = [{"name": self.name, "results": self._hub_results()}]
        return "".join(f"{key}: {json.dumps(v, ensure_ascii=False)}\n" for key, v in values.items())

    def _base_is_published(self) -> bool:
        return self._base() in PUBLISHED

    def _base(self) -> str:
        """Return the published encoder behind this one, or what the recipe calls its encoder."""
        described = self._run.described.get("encoder") or {}
        base = described.get("clrelkt.json", {}).get("base", self._run.recipe.encoder)
        return str(base)

    def _hub_results(self) -> list[dict[str, Any]]:
        assert self._result is not None
        return [
            {
                "task": {"type": "information-retrieval", "name": "Information Retrieval"},
                "dataset": {
                    "name": f"{self._run.corpus} ({code}, {self._result.split})",
                    "type": _HUB_DATASETS.get(self._run.corpus, self._run.corpus),
                },
                "metrics": [
                    {"type": hub, "name": metric, "value": round(row.to_json()[metric], 6)}
                    for metric, hub in _HUB_METRICS.items()
                ],
            }
            for code, row in self._result.languages.items()
        ]

    def summary(self) -> str:
        recipe = self._run.recipe
        languages = ", ".join(map(language_name, self._trained_languages()))
        text = (
            f"A sentence encoder that finds the answer in another language: questions in "
            f"{languages}; texts in the language of the corpus that it was trained on. It is what "
            f"the stage **{self._stage.name}** of the recipe `{recipe.name}` (seed "
            f"{self._run.seed}) made of `{recipe.encoder}` on {_escaped(self._run.corpus)}."
        )
        others = [name for name in self._run.last_stages if name != self._stage.name]
        if self._stage.name in self._run.last_stages and others:
            text += (
                f" The run has other encoders for other languages: {', '.join(others)}. "
                f"This one is meant for {self._own_languages() or 'none of its own'}."
            )
        elif others and self._stage.name not in self._run.last_stages:
            text += f" It is a step on the way: {', '.join(others)} went on from it."
        return text

    def _own_languages(self) -> str:
        own = [c for c in self._run.languages if self._run.own_stage(c) == self._stage.name]
        return ", ".join(map(language_name, own))

    def usage(self) -> str:
        return (
            "## Use\n\n"
            "```python\n"
            "import clrelkt\n\n"
            'encoder = clrelkt.load_encoder("this-folder")\n'
            'question = encoder.encode(["¿Quién descubrió la penicilina?"], "question")\n'
            'passages = encoder.encode(["Penicillin was discovered by Fleming."], "passage")\n'
            "print(question @ passages.T)  # cosines: the vectors have unit length\n"
            "```\n\n"
            "Where clrelkt is installed sentence-transformers opens the folder too:\n"
            '`SentenceTransformer("this-folder", trust_remote_code=True)`.'
        )

    def results(self) -> str:
        if self._result is None:
            return (
                "## Results\n\n"
                "Nothing is known of its quality on test questions: none was looked at in this run."
            )
        result = self._result
        scored = (
            ""
            if result.pool == "passage"
            else f", a document scored as {_SCORED[result.document_score]}"
        )
        stages = self._run.summaries
        own = stages[self._stage.name]
        shown = [name for name in (BASELINE, ZERO_SHOT) if name in stages]
        head = ["language", "questions"]
        head += [f"{name} hit rate@1" for name in shown] + [f"**{metric}**" for metric in METRICS]
        rows = [head, ["---", *["---:"] * (len(head) - 1)]]
        for code, row in result.languages.items():
            others = [estimate_cell(stages[n].languages[code]["hit_rate@1"]) for n in shown]
            cells = [estimate_cell(own.languages[code][metric]) for metric in METRICS]
            rows.append([f"{language_name(code)} ({code})", f"{row.questions:,}", *others, *cells])
        rows += self._mean_rows(own, [stages[name] for name in shown])
        return (
            "## Results\n\n"
            f"{result.split.capitalize()} questions of {_escaped(result.corpus)}, pool of "
            f"{result.pool}s{scored}; ± is half the 95 % interval (bootstrap over questions). "
            f"`{BASELINE}` searches words with the question in the documents' language; "
            f"`{ZERO_SHOT}` is the encoder before training.\n\n" + _table(rows)
        )

    def _mean_rows(self, own: SeedSummary, others: Sequence[SeedSummary]) -> Iterator[list[str]]:
        for group in own.means:
            cells = [estimate_cell(own.means[group][metric]) for metric in METRICS]
            before = [estimate_cell(other.means[group]["hit_rate@1"]) for other in others]
            yield [f"*{group_label(group)}*", "", *before, *cells]
        cells = [estimate_cell(own.mean[metric]) for metric in METRICS]
        yield ["*all*", "", *(estimate_cell(o.mean["hit_rate@1"]) for o in others), *cells]

    def training(self) -> str:
        recipe = self._run.recipe
        lines = ["## Training", ""]
        lines.append(
            f"Corpus: {_escaped(self._run.corpus)}"
            + (f" ({self._corpus.citation})" if self._corpus else "")
            + f", split by {recipe.split_by} with seed {self._run.described.get('split_seed')}; "
            "the test questions were not trained on."
        )
        translated = self._run.described["corpus"].get("translated_by") or {}
        if translated:
            counts = ", ".join(f"{count:,} by {_escaped(m)}" for m, count in translated.items())
            lines += ["", f"Questions that a machine translated: {counts}."]
        lines += ["", "Stages:", ""]
        for number, stage in enumerate(self._chain(), start=1):
            lines.append(f"{number}. **{stage.name}**: {_stage_in_words(stage)}")
        whole = json.dumps(recipe.to_json(), ensure_ascii=False, indent=1)
        lines += ["", "<details><summary>The recipe in full</summary>", ""]
        lines += ["```json", whole, "```", "", "</details>"]
        return "\n".join(lines)

    def limits(self) -> str:
        known = set(self._trained_languages())
        lines = [
            "## Limits",
            "",
            f"- Measured on {_escaped(self._run.corpus)} alone"
            + (f", {self._questions()} test questions" if self._result else "")
            + "; on other subjects and styles of question it may do better or worse.",
            f"- It was trained on questions in {', '.join(map(language_name, sorted(known)))}; of "
            "other languages nothing is known.",
            "- It finds texts that fit a question; it does not tell whether they are true, and it "
            "always finds something, even where no text answers.",
            "- It has what biases its base and its training texts have.",
        ]
        below = self._not_gained()
        if below:
            lines.insert(
                3,
                f"- In {below} it is not better than before training (hit rate@1 on test).",
            )
        if self._result is not None and BASELINE in self._run.results:
            baseline = self._run.results[BASELINE].mean.hit_rate_at_1
            if baseline > self._result.mean.hit_rate_at_1:
                lines.append(
                    "- A good machine translation of the question and BM25 find more: "
                    f"{baseline:.1%} against {self._result.mean.hit_rate_at_1:.1%}, mean over "
                    "languages (BM25 with the true question in the documents' language)."
                )
        return "\n".join(lines)

    def _questions(self) -> str:
        assert self._result is not None
        return f"{sum(row.questions for row in self._result.languages.values()):,}"

    def _not_gained(self) -> str:
        if self._result is None or ZERO_SHOT not in self._run.results:
            return ""
        before = self._run.results[ZERO_SHOT].languages
        codes = [
            code
            for code, row in self._result.languages.items()
            if row.hit_rate_at_1 <= before[code].hit_rate_at_1
        ]
        return ", ".join(map(language_name, codes))

    def licences(self) -> str:
        base = self._base()
        weights = (
            f"the weights of `{base}`, from which it was trained, are Apache-2.0 (Google)"
            if self._base_is_published()
            else f"that of `{base}`, from which it was trained, is not known here: look it up"
        )
        data = (
            f"{self._corpus.name} is {self._corpus.licence}"
            if self._corpus
            else f"that of {_escaped(self._run.corpus)} is not known here: look it up"
        )
        lines = ["## Licences", "", f"- Encoder: {weights}.", f"- Training data: {data}."]
        sources = self._sources()
        if sources:
            lines.append(
                f"- Texts of {', '.join(f'`{source}`' for source in sources)} were trained on too: "
                "their licences stand where they come from."
            )
        return "\n".join(lines)

    def _sources(self) -> list[str]:
        found: dict[str, None] = {}
        for stage in self._chain():
            if isinstance(stage.method, Contrastive):
                found |= dict.fromkeys(given.source for given in stage.method.answered or ())
                found |= dict.fromkeys(given.source for given in stage.method.pairs or ())
        return list(found)

    def origin(self) -> str:
        described = self._run.described
        environment = described.get("environment", {})
        packages = environment.get("packages", {})
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        lines = [
            "## Origin",
            "",
            f"- weights before training: {described.get('weights')} (sha256 "
            f"`{described.get('weights_sha256')}`)",
            f"- corpus: sha256 `{described['corpus'].get('sha256')}`",
            f"- seed {self._run.seed}, hardware: {environment.get('hardware')}",
            f"- versions: Python {environment.get('python')}, {versions}",
            f"- commit: {environment.get('commit') or 'not a checkout'}",
            "",
            f"Method: {_PAPER}",
        ]
        if self._base_is_published():
            lines += ["", f"Base: {_BASE_PAPER}"]
        return "\n".join(lines)


_SCORED: Mapping[str, str] = MappingProxyType(
    {"whole": "one text", "best-passage": "its best passage"}
)


def _known_corpus(name: str) -> CatalogueEntry | None:
    try:
        return catalogue_entry(name)
    except UnknownNameError:
        return None


def _stage_in_words(stage: Stage) -> str:
    start = f"from `{stage.start}`" if stage.start else "from the encoder before training"
    own = stage.optimisation
    return (
        f"{type(stage.method).__name__}, {start}; at most {own.epochs} epochs, batches of "
        f"{own.batch}, learning rate {own.learning_rate:g}"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escaped(text: str) -> str:
    """Keep a name from becoming markup."""
    kept = text.replace("\n", " ")
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&" else c for c in kept)
