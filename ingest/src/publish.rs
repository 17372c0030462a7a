//! Publish: captured changes to the log.
