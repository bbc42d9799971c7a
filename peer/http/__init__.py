"""HTTP application of a peer: the API, the page and the metrics. It needs the extra ``web``.

``routes`` is the table of the API, ``application`` answers requests by the handler that answers the
control socket, ``access`` decides on the rights of a request, ``listener`` owns the sockets.
Invariant: nothing is decided here that the command line decides otherwise.
"""
