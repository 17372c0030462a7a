//! What the benchmarks share: processes and their cost, reports, the data and the services.
//!
//! | module | owns |
//! |---|---|
//! | [`child`] | a measured process: wall time, CPU time, peak memory |
//! | [`load`] | the commits of `freshness`, on a schedule |
//! | [`random`] | numbers that are the same everywhere |
//! | [`report`] | rows, medians and bars; as a table and as JSON |
//! | [`services`] | the URLs of the services |
//! | [`topic`] | topics that are filled once |
//! | [`users`] | the generated users, and the right counts |
//! | [`view`] | the view as a reader sees it |

pub(crate) mod child;
pub(crate) mod load;
pub(crate) mod random;
pub(crate) mod report;
pub(crate) mod services;
pub(crate) mod topic;
pub(crate) mod users;
pub(crate) mod view;
