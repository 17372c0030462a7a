//! Placement: which workers run the processes of a dataflow's generation, as a pure function of the
//! free slots.
//!
//! N worker threads are divided into P processes of T threads each, P · T = N, because timely needs
//! the same number of threads in every process. Among the ways to divide N, the one with the fewest
//! processes that fits the free slots wins. If N does not fit, the largest smaller number is
//! placed, or nothing when the job waits for slots.
//!
//! ```text
//! N = 6, free slots 4 and 4    ─►  P = 2, T = 3      one process on each worker
//! N = 6, free slots 2, 2 and 2 ─►  P = 3, T = 2
//! N = 6, free slots 4 and 1    ─►  P = 5, T = 1      six do not fit, so five are placed
//! ```

pub(crate) mod anti_affinity;

use tidemill_protocol::WorkerId;

/// A worker and its free slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Free {
    /// The worker's id.
    pub(crate) worker: WorkerId,
    /// The worker's name, for messages.
    pub(crate) name: String,
    /// Slots that no other component uses.
    pub(crate) slots: usize,
}

/// A placement of a generation's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Worker threads of each process.
    pub(crate) threads: usize,
    /// The worker of each process by index: its id and its name.
    pub(crate) workers: Vec<(WorkerId, String)>,
}

impl Placement {
    /// Worker threads of all processes together.
    fn size(&self) -> usize {
        self.threads * self.workers.len()
    }
}

/// Places `wanted` threads, or fewer unless `waits` is set. Workers for which `apart` returns true
/// are never placed together.
///
/// # Errors
///
/// Nothing can be placed; the text tells the user why.
pub(crate) fn place(
    free: &[Free],
    wanted: usize,
    waits: bool,
    apart: &dyn Fn(&str, &str) -> bool,
) -> Result<Placement, String> {
    let mut best: Option<Placement> = None;
    for group in groups(free, apart) {
        let placed = place_in(&group, wanted, waits);
        // The largest placement wins, then the one with the fewest processes, then the first.
        let rank = |it: &Placement| (it.size(), std::cmp::Reverse(it.workers.len()));
        if let Some(placed) = placed
            && best.as_ref().is_none_or(|best| rank(&placed) > rank(best))
        {
            best = Some(placed);
        }
    }
    best.ok_or_else(|| why_not(free, wanted))
}

/// Explains to the user why nothing could be placed.
///
/// `wanted` is the number of worker threads that were asked for.
fn why_not(free: &[Free], wanted: usize) -> String {
    let slots: usize = free.iter().map(|free| free.slots).sum();
    if free.is_empty() {
        return "no worker is there that takes processes; start one with `tidemill worker`"
            .to_owned();
    }
    if slots >= wanted {
        return format!(
            "{slots} slots are free, but no way to divide {wanted} workers evenly fits them"
        );
    }
    let s = if slots == 1 { "" } else { "s" };
    format!("{slots} slot{s} free of {wanted} wanted; more workers with slots are needed")
}

/// Groups of workers in which no pair must be kept apart, most free slots first. The first group
/// starts with the freest worker; each worker that is in such a pair also starts a group.
fn groups(free: &[Free], apart: &dyn Fn(&str, &str) -> bool) -> Vec<Vec<Free>> {
    let mut sorted: Vec<&Free> = free.iter().filter(|free| free.slots > 0).collect();
    sorted.sort_by(|a, b| (b.slots, &a.worker).cmp(&(a.slots, &b.worker)));
    let group = |first: Option<&Free>| {
        let mut chosen: Vec<Free> = first.cloned().into_iter().collect();
        for candidate in &sorted {
            let fits =
                |it: &Free| it.worker != candidate.worker && !apart(&it.worker, &candidate.worker);
            if chosen.iter().all(fits) {
                chosen.push((*candidate).clone());
            }
        }
        chosen
    };
    let is_in_a_pair = |it: &&&Free| {
        let mut others = sorted.iter();
        others.any(|other| apart(&it.worker, &other.worker))
    };
    let mut groups = vec![group(None)];
    groups.extend(
        sorted
            .iter()
            .filter(is_in_a_pair)
            .map(|first| group(Some(first))),
    );
    groups
}

/// The best placement within one group: the largest size, then the most threads in each process.
fn place_in(group: &[Free], wanted: usize, waits: bool) -> Option<Placement> {
    let slots: usize = group.iter().map(|free| free.slots).sum();
    let least = if waits { wanted } else { 1 };
    let sizes = (least.max(1)..=wanted.min(slots)).rev();
    sizes
        .flat_map(|size| (1..=size).rev().map(move |threads| (size, threads)))
        .filter(|(size, threads)| size % threads == 0)
        .find_map(|(size, threads)| fill(group, size / threads, threads))
}

/// Fills the workers in order with processes of `threads` threads; `None` if not all `processes`
/// fit.
fn fill(group: &[Free], processes: usize, threads: usize) -> Option<Placement> {
    let places = group.iter().flat_map(|free| {
        let place = (free.worker.clone(), free.name.clone());
        std::iter::repeat_n(place, free.slots / threads)
    });
    let workers: Vec<_> = places.take(processes).collect();
    (workers.len() == processes).then_some(Placement { threads, workers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(slots: &[usize]) -> Vec<Free> {
        let workers = slots.iter().enumerate();
        workers
            .map(|(n, slots)| Free {
                worker: format!("w{n}"),
                name: format!("n{n}"),
                slots: *slots,
            })
            .collect()
    }

    fn placed(slots: &[usize], wanted: usize) -> Option<(usize, Vec<String>)> {
        let placed = place(&free(slots), wanted, false, &|_, _| false).ok()?;
        let workers = placed.workers.into_iter().map(|(id, _)| id).collect();
        Some((placed.threads, workers))
    }

    fn at(threads: usize, workers: &[&str]) -> Option<(usize, Vec<String>)> {
        Some((threads, workers.iter().map(|&id| id.to_owned()).collect()))
    }

    #[test]
    fn the_fewest_processes_that_fit() {
        assert_eq!(placed(&[2, 4], 4), at(4, &["w1"]));
        assert_eq!(placed(&[2, 2], 4), at(2, &["w0", "w1"]));
        assert_eq!(placed(&[2, 2, 2], 6), at(2, &["w0", "w1", "w2"]));
        assert_eq!(placed(&[4, 2], 6), at(2, &["w0", "w0", "w1"]));
        assert_eq!(placed(&[1, 1, 1], 3), at(1, &["w0", "w1", "w2"]));
    }

    #[test]
    fn with_too_few_slots_the_largest_number_that_can_be_divided_evenly() {
        assert_eq!(placed(&[2], 6), at(2, &["w0"]));
        assert_eq!(placed(&[3, 2], 6), at(1, &["w0", "w0", "w0", "w1", "w1"]));
        assert_eq!(placed(&[0], 6), None);
        let waiting = place(&free(&[3, 2]), 6, true, &|_, _| false).unwrap_err();
        assert!(waiting.contains("5 slots free of 6 wanted"), "{waiting}");
        let none = place(&[], 1, false, &|_, _| false).unwrap_err();
        assert!(none.contains("no worker is there"), "{none}");
    }

    #[test]
    fn workers_that_cannot_reach_each_other_are_not_placed_together() {
        let cut = |a: &str, b: &str| [a, b].contains(&"w0") && [a, b].contains(&"w1");
        let three = place(&free(&[2, 2, 2]), 4, false, &cut).unwrap();
        let ids: Vec<_> = three.workers.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["w0", "w2"]);
        let two = place(&free(&[2, 3]), 4, false, &cut).unwrap();
        assert_eq!((two.threads, two.workers.len()), (3, 1));
    }
}
