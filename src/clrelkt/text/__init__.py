"""Words and sentences, in any script."""

from clrelkt.text.sentences import sentence_starts, split_sentences
from clrelkt.text.words import IcuWords, WordTokenizer

__all__ = ["IcuWords", "WordTokenizer", "sentence_starts", "split_sentences"]
