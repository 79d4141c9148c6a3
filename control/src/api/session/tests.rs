//! Operations of sessions, in-process.
