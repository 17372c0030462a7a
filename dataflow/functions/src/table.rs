//! The function table as a static: the entries of all families.
//!
//! Input: the list of entries of each family. Output: one list, in which [`crate::typing::resolve`]
//! searches by name. The order of the list does not decide which entry a call means.

use std::sync::LazyLock;

use super::entry::Entry;
use super::{casts, compare};
use crate::numeric::{arithmetic, decimals, double};
use crate::text::{like, regex, strings};
use crate::time::{dates, extract, to_char, to_date};

/// All entries, in the order of the families.
///
/// The list is built at the first use and lives until the process ends: resolved calls hold
/// references to its entries.
pub(super) static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let families: [fn() -> Vec<Entry>; 12] = [
        arithmetic::entries,
        decimals::entries,
        double::entries,
        casts::entries,
        compare::entries,
        strings::entries,
        like::entries,
        regex::entries,
        dates::entries,
        extract::entries,
        to_char::entries,
        to_date::entries,
    ];
    families.into_iter().flat_map(|family| family()).collect()
});
