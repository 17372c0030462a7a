//! The real master, asked over HTTP as workers, clients and strangers ask it. The workers here are
//! this test itself, which speaks the protocol: what it reports is what the master knows.

mod asking;
mod doors;
mod generations;
mod takeover;
