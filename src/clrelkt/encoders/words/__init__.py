"""Tokenising by way of words that were met before."""
