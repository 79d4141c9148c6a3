//! Decisions that know neither HTTP nor SQL.
