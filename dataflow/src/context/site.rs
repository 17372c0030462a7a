//! Sites: the names under which checkpoints store the state of operators.
//!
//! A stateful operator whose input does not come from other state has a site (see
//! [`tidemill_state::checkpoint`]). A site that the checkpoint does not contain, because its view
//! is new or was altered, reads its sources from the beginning, all of it at the checkpoint's
//! epoch.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use tidemill_ir::Epoch;
use tidemill_state::checkpoint::State;

use crate::epoch::messages::Start;

/// The identity of one operator's state.
#[derive(Clone)]
pub(crate) struct Site {
    /// The name in checkpoints, `VIEW/FINGERPRINT/NUMBER`. It contains everything the state depends
    /// on.
    pub(crate) name: Arc<str>,
    /// The sources whose records the state is made of.
    pub(crate) sources: Rc<BTreeSet<usize>>,
    /// The sink table that must be filled through the checkpoint, or the state is useless; `None`
    /// if the state does not depend on a table.
    pub(crate) table: Option<usize>,
}

impl Site {
    /// The epoch of the checkpoint, and the site's state in it; `None` if the site begins empty.
    pub(crate) fn restored(&self, start: &Start) -> Option<(Epoch, State)> {
        let checkpoint = start.checkpoint.as_ref()?;
        let state = checkpoint.sites.get(&*self.name)?;
        let filled = self.table.is_none_or(|table| {
            let served = start.served(table);
            served.is_some_and(|through| through >= checkpoint.epoch)
        });
        filled.then(|| (checkpoint.epoch, state.clone()))
    }
}
