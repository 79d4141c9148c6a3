//! The routing decisions, under virtual time.
