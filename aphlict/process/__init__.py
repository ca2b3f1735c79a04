"""The processes: supervisor, worker, pidfile, signals, log files, privileges."""
