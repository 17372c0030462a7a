//! The function table as a static: the entries of all families.
//!
//! Input: the list of entries of each family. Output: one list, in which [`crate::typing::resolve`]
//! searches by name. The order of the list does not decide which entry a call means.

use std::sync::LazyLock;

use crate::entry::Entry;
use crate::numeric::{arithmetic, decimals, double, to_char as numbers_to_char};
use crate::text::{arrays, like, regex, strings};
use crate::time::{dates, extract, to_char, to_date};
use crate::{casts, compare, json};

/// All entries, in the order of the families.
///
/// The list is built at the first use and lives until the process ends: resolved calls hold
/// references to its entries.
pub(super) static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let families: [fn() -> Vec<Entry>; 19] = [
        arithmetic::entries,
        decimals::entries,
        double::entries,
        numbers_to_char::entries,
        casts::entries,
        json::access::entries,
        json::build::entries,
        json::casts::entries,
        json::change::entries,
        json::contain::entries,
        compare::entries,
        strings::entries,
        arrays::entries,
        like::entries,
        regex::entries,
        dates::entries,
        extract::entries,
        to_char::entries,
        to_date::entries,
    ];
    families.into_iter().flat_map(|family| family()).collect()
});
