//! Connections to services: TLS, users and passwords, and that no secret is ever printed.

mod call;
mod given;
mod registry;
mod services;
