//! The roster of the mesh: which processes of the job this one is connected to.
//!
//! Invariants:
//! 1. Each index has at most one connection.
//! 2. A connection that ended before all processes were connected makes room for another one.
//! 3. After the connections were handed over, none is accepted.
//!
//! Slots go from Free to Reserved (a process proved its identity) to Connected to Taken (handed to
//! timely), and back to Free when the handshake fails or the connection ends.
//!
//! ```text
//! Free ─ reserve ─► Reserved ─ fill ─► Connected ─ take ─► Taken
//!   ▲                  │ dropped            │ ended
//!   └──────────────────┴────────────────────┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_dataflow::job::Sockets;

use super::socket::Link;

#[derive(Debug)]
/// The state of the connection to one process.
enum Slot {
    /// This process.
    Own,
    /// Not connected.
    Free,
    /// A process that proved its identity, or that this one is connecting to, is about to be
    /// connected.
    Reserved,
    /// Connected, and not handed over yet.
    Connected(Link),
    /// The connection was handed over.
    Taken,
}

/// One slot per process, by index.
#[derive(Debug)]
pub(super) struct Roster {
    /// The slot of this process is [`Slot::Own`].
    slots: Mutex<Vec<Slot>>,
}

impl Roster {
    /// A roster of `processes` slots, in process `own`.
    pub(super) fn new(own: usize, processes: usize) -> Self {
        let slot = |index| if index == own { Slot::Own } else { Slot::Free };
        Self {
            slots: Mutex::new((0..processes).map(slot).collect()),
        }
    }

    /// The slots, also after a panic of another thread: each change of a slot is one assignment.
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the slot of process `index`; `None` if that process is connected or being
    /// connected.
    pub(super) fn reserve(self: &Arc<Self>, index: usize) -> Option<Reservation> {
        let mut slots = self.slots();
        let slot = slots.get_mut(index)?;
        let free = match slot {
            Slot::Free => true,
            Slot::Connected(link) => !link.is_up(),
            Slot::Own | Slot::Reserved | Slot::Taken => false,
        };
        free.then(|| {
            *slot = Slot::Reserved;
            Reservation {
                roster: Arc::clone(self),
                index,
            }
        })
    }

    /// Whether the connections were handed over.
    pub(super) fn is_taken(&self) -> bool {
        self.slots().iter().any(|slot| matches!(slot, Slot::Taken))
    }

    /// The indices of the processes that are not connected. Frees slots whose connection ended.
    pub(super) fn missing(&self) -> Vec<usize> {
        let mut slots = self.slots();
        for slot in slots.iter_mut() {
            if matches!(slot, Slot::Connected(link) if !link.is_up()) {
                *slot = Slot::Free;
            }
        }
        let missing = |slot: &Slot| matches!(slot, Slot::Free | Slot::Reserved);
        let each = slots.iter().enumerate();
        each.filter(|(_, slot)| missing(slot))
            .map(|(index, _)| index)
            .collect()
    }

    /// Hands over all connections; `None` while a process is missing.
    pub(super) fn take(&self) -> Option<Sockets> {
        if !self.missing().is_empty() {
            return None;
        }
        let mut slots = self.slots();
        let (mut tcp, mut unix) = (Vec::new(), Vec::new());
        for slot in slots.iter_mut() {
            let link = match std::mem::replace(slot, Slot::Taken) {
                Slot::Connected(link) => Some(link),
                Slot::Own | Slot::Free | Slot::Reserved | Slot::Taken => None,
            };
            let (to_tcp, to_unix) = match link {
                Some(Link::Tcp(stream)) => (Some(stream), None),
                Some(Link::Unix(stream)) => (None, Some(stream)),
                None => (None, None),
            };
            tcp.push(to_tcp);
            unix.push(to_unix);
        }
        Some(if unix.iter().any(Option::is_some) {
            Sockets::Unix(unix)
        } else {
            Sockets::Tcp(tcp)
        })
    }
}

/// A reserved slot. Dropping the reservation frees the slot, unless it was filled.
#[derive(Debug)]
pub(super) struct Reservation {
    /// The roster of the slot.
    roster: Arc<Roster>,
    /// The index of the process to which the slot belongs.
    index: usize,
}

impl Reservation {
    /// Puts the connection into the slot.
    pub(super) fn fill(self, link: Link) {
        if let Some(slot) = self.roster.slots().get_mut(self.index) {
            *slot = Slot::Connected(link);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(slot) = self.roster.slots().get_mut(self.index)
            && matches!(slot, Slot::Reserved)
        {
            *slot = Slot::Free;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn link() -> (Link, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (Link::Unix(near), far)
    }

    #[test]
    fn an_index_is_connected_once_until_its_connection_ends() {
        let roster = Arc::new(Roster::new(1, 3));
        assert_eq!(roster.missing(), [0, 2]);
        assert!(roster.reserve(1).is_none(), "this process itself");
        assert!(roster.reserve(3).is_none());
        let reserved = roster.reserve(0).unwrap();
        assert!(roster.reserve(0).is_none());
        drop(reserved);
        let (near, far) = link();
        roster.reserve(0).unwrap().fill(near);
        assert!(roster.reserve(0).is_none());
        assert_eq!(roster.missing(), [2]);
        drop(far);
        let (near, _far) = link();
        roster.reserve(0).unwrap().fill(near);
        assert_eq!(roster.missing(), [2]);
    }

    #[test]
    fn all_are_handed_over_at_once_and_no_others_taken_then() {
        let roster = Arc::new(Roster::new(0, 3));
        let (first, _far) = link();
        roster.reserve(1).unwrap().fill(first);
        assert!(roster.take().is_none());
        let (second, gone) = link();
        roster.reserve(2).unwrap().fill(second);
        drop(gone);
        assert!(roster.take().is_none(), "one has ended");
        assert_eq!(roster.missing(), [2]);
        let (second, _far) = link();
        roster.reserve(2).unwrap().fill(second);
        let Some(Sockets::Unix(sockets)) = roster.take() else {
            panic!("all are there");
        };
        let there: Vec<_> = sockets.iter().map(Option::is_some).collect();
        assert_eq!(there, [false, true, true]);
        assert!(roster.is_taken());
        assert!(roster.reserve(1).is_none());
    }
}
