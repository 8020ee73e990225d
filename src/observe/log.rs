//! Where log lines go: format, level, reopening, and a writer that never holds up a request.
