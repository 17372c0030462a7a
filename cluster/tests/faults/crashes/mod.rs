//! Crashes at every failpoint, and restarts with other workers, processes and stores: the real
//! binary, whose views must hold what the database's SQL says, row by row.

mod points;
mod restarts;
