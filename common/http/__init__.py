"""Pieces of HTTP that both programs use (extra ``web``)."""
