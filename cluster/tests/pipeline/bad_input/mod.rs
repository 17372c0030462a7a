//! Input and surroundings that are wrong: a dead letter or a clear error, and all else flows on.

mod refused;
mod topics;
