//! `ingest.toml`: what to fetch, when, and where it lands.
