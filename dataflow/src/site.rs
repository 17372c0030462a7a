//! Sites: the names under which checkpoints keep the state of operators.
//!
//! A stateful operator whose input does not come out of other state has a site (see
//! [`crate::checkpoint`]). A site that the checkpoint does not know (its view is new, or was
//! altered) takes its input from the beginning of its sources, all of it at the checkpoint's epoch.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use crate::Epoch;
use crate::checkpoint::State;
use crate::time::messages::Start;

/// The state of one operator.
#[derive(Clone)]
pub(crate) struct Site {
    /// Its name in checkpoints; says all that the state depends on.
    pub(crate) name: Arc<str>,
    /// The sources whose records the state is made of.
    pub(crate) sources: Rc<BTreeSet<usize>>,
    /// The sink's table that has to be filled through the checkpoint for the state to be of use.
    pub(crate) table: Option<usize>,
}

impl Site {
    /// The epoch of the checkpoint and the site's state in it. None when the site begins empty.
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
