"""The host: home directories, files, process, standard streams and clocks."""
