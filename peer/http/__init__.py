"""HTTP application of a peer: the API, the page and the metrics. It needs the extra ``web``.

``routes`` is the table of the API, and ``application`` answers requests by the handler that answers
the control socket. Parts that the tracker's page needs as well are in `common.http`.
Invariant: nothing is decided here that the command line decides otherwise.
"""
