"""Where the files of a table lie: on this machine, or on an object store."""
