//! The function table as a static: the entries of all families.

use std::sync::LazyLock;

use super::entry::Entry;
use super::{
    arithmetic, casts, compare, dates, extract, like, numbers, numeric, regex, text, to_char,
    to_date,
};

/// All entries, in the order of the families.
pub(super) static TABLE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let families: [fn() -> Vec<Entry>; 12] = [
        arithmetic::entries,
        numeric::entries,
        numbers::entries,
        casts::entries,
        compare::entries,
        text::entries,
        like::entries,
        regex::entries,
        dates::entries,
        extract::entries,
        to_char::entries,
        to_date::entries,
    ];
    families.into_iter().flat_map(|family| family()).collect()
});
