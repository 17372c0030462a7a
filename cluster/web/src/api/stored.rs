//! The store in which a server keeps what outlives it: the audit log and the states of alerts.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_state::store::{self, Store};

/// A store that is opened when it is first needed, because it may be away at the start. Cheap to
/// clone. Its calls block.
#[derive(Clone)]
pub struct Stored(Arc<Inner>);

struct Inner {
    url: String,
    /// The folder of the objects.
    folder: String,
    opened: Mutex<Option<Arc<dyn Store>>>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stored").field(&self.0.folder).finish()
    }
}

impl Stored {
    /// The folder `folder` of the store at `url`, which is not opened yet.
    pub fn new(url: &str, folder: &str) -> Self {
        Self(Arc::new(Inner {
            url: url.to_owned(),
            folder: folder.to_owned(),
            opened: Mutex::default(),
        }))
    }

    /// The name of an object of the folder.
    pub(super) fn name(&self, object: &str) -> String {
        format!("{}/{object}", self.0.folder)
    }

    /// The store.
    ///
    /// # Errors
    /// `Retry` when the store is away, `Data` when it refuses.
    pub(super) fn store(&self) -> tidemill_log::Result<Arc<dyn Store>> {
        let opened = self.0.opened.lock();
        let mut opened = opened.unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*opened {
            return Ok(Arc::clone(store));
        }
        let store = store::open(&self.0.url)?;
        *opened = Some(Arc::clone(&store));
        Ok(store)
    }
}
