//! What a running process shows over HTTP: readiness, metrics that add up to what was put in, which
//! of its services are down, whether its views show what was committed, and that nobody who
//! connects can disturb it.

mod alerts;
mod browsed;
mod center;
mod dataflow;
mod garbage;
mod inspected;
mod outages;
mod passing;
mod readable;
mod river;
