//! Faults: processes and services are killed, frozen, cut off or made unusable, at every step and
//! at random moments. Afterwards every view is what the SQL says, and every change was published
//! once.

// Clippy spares unwraps in test functions but not in what they call.
#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod crashes;
mod kills;
mod outages;
mod pressure;
mod services;
mod torture;

/// Held by a test that loads all services at once: [`torture`] and [`pressure`] take turns.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
