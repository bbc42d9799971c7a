"""Full-screen view of a peer's transfers: the command `top`. It needs the extra ``tui``.

``feed`` asks the peer on threads, ``transfers`` makes rows and texts of its answers, ``app`` and
``dialogs`` show them by Textual, which only these two import.
"""
