"""Words, sentences and passages, in any script."""

from clrelkt.text.passages import split_passages
from clrelkt.text.sentences import Span, sentence_spans, sentence_starts, split_sentences
from clrelkt.text.words import IcuWords, WordTokenizer

__all__ = [
    "IcuWords",
    "Span",
    "WordTokenizer",
    "sentence_spans",
    "sentence_starts",
    "split_passages",
    "split_sentences",
]
