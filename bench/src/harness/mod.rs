//! What the benchmarks share: processes and their cost, reports, the data and the services.

pub(crate) mod child;
pub(crate) mod load;
pub(crate) mod report;
pub(crate) mod services;
pub(crate) mod topic;
pub(crate) mod users;
pub(crate) mod view;
