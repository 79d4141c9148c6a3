//! `{{ name }}` (documents.md §1.4).
