//! What a process is configured with (`tidemill-config`): flags, the connections to the services,
//! the folder of a pipeline, and who may run it.

pub mod args;
pub mod connections;
pub mod disk;
pub mod hosts;
pub mod lease;
pub mod pipeline;
pub mod probe;
pub mod services;
