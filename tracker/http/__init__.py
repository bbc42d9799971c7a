"""HTTP application of a tracker: the API, the page and the monitoring. It needs the extra ``web``.

It runs in a process of its own, which the tracker starts (see tracker.service.web_process), and
speaks to the tracker over the operator's socket. ``python -m tracker.http`` is that process.
"""
