//! Fetch: one page of a JSON API over HTTP.
