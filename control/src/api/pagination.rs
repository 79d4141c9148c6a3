//! `NextToken`: opaque, bound to the list and its filters.
