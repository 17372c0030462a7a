//! Tests of minting: one process mints a generation, and another writes as it.

use super::*;

fn claimed(store: &Arc<dyn Store>, claim: &Claim) -> Result<(Journal, Standing)> {
    Journal::open_minted(Arc::clone(store), "job", claim)
}

fn minted(store: &Arc<dyn Store>) -> u64 {
    mint(Arc::clone(store), "job").unwrap()
}

#[test]
fn minting_fences_whoever_wrote_before_and_the_claimant_goes_on() {
    on_each(|store| {
        let old = open(store);
        for binding in five() {
            old.bind(&binding).unwrap();
        }
        let generation = minted(store);
        assert_eq!(generation, 2);
        let refused = old.bind(&binding(60, &[("a", 0, 99)]));
        assert_eq!(kind(refused), Some(Kind::Fence));
        assert_eq!(read(store).bindings, five());
        let (new, standing) = claimed(store, &Claim::of(generation)).unwrap();
        assert_eq!((standing.generation, standing.bindings), (2, five()));
        new.bind(&binding(60, &[("a", 0, 10)])).unwrap();
        new.checkpoint(&checkpoint(60)).unwrap();
        new.truncate(60).unwrap();
        new.bind(&binding(70, &[])).unwrap();
        assert_eq!(read(store).bindings.len(), 2);
        // Without being told a generation a process takes the next, as ever.
        let (_next, standing) = Journal::open(Arc::clone(store), "job").unwrap();
        assert_eq!(standing.generation, 3);
        assert_eq!(
            kind(new.bind(&binding(80, &[]))),
            Some(Kind::Fence),
            "the claimant is fenced like anybody"
        );
    });
}

#[test]
fn a_generation_that_was_superseded_cannot_be_opened_and_the_error_names_the_newer_one() {
    on_each(|store| {
        let first = minted(store);
        let second = minted(store);
        let before = read(store);
        let error = claimed(store, &Claim::of(first)).err().unwrap();
        assert_eq!(error.kind(), Kind::Fence);
        let said = error.to_string();
        assert!(
            said.contains(&format!("generation {second} took")),
            "{said}"
        );
        assert!(said.contains("must stop"), "{said}");
        assert_eq!(read(store), before);
        let (journal, _) = claimed(store, &Claim::of(second)).unwrap();
        journal.bind(&binding(10, &[])).unwrap();
        let third = minted(store);
        let error = claimed(store, &Claim::of(second)).err().unwrap();
        assert!(error.to_string().contains(&format!("generation {third}")));
        assert_eq!(kind(journal.bind(&binding(20, &[]))), Some(Kind::Fence));
    });
}

#[test]
fn of_two_processes_that_were_told_the_same_generation_one_writes() {
    on_each(|store| {
        let generation = minted(store);
        let claim = Claim::of(generation);
        let (journal, _) = claimed(store, &claim).unwrap();
        let twin = || claimed(store, &Claim::of(generation)).err().unwrap();
        assert_eq!(twin().kind(), Kind::Fence);
        journal.bind(&binding(10, &[("a", 0, 1)])).unwrap();
        journal.bind(&binding(20, &[("a", 0, 2)])).unwrap();
        assert_eq!(twin().kind(), Kind::Fence);
        // Nothing but what stands for all before it is left, and that one knows too.
        journal.truncate(20).unwrap();
        assert_eq!(twin().kind(), Kind::Fence);
        assert!(
            twin()
                .to_string()
                .contains("another process opened generation 1")
        );
        journal.bind(&binding(30, &[])).unwrap();
    });
}

#[test]
fn a_claim_whose_outcome_was_not_known_is_made_again() {
    on_each(|store| {
        let claim = Claim::of(minted(store));
        let (_lost, _) = claimed(store, &claim).unwrap();
        let (journal, _) = claimed(store, &claim).unwrap();
        journal.bind(&binding(10, &[])).unwrap();
    });
}

#[test]
fn a_generation_of_another_journal_is_refused() {
    on_each(|store| {
        minted(store);
        let error = claimed(store, &Claim::of(5)).err().unwrap();
        assert_eq!(error.kind(), Kind::Data);
        assert!(
            error.to_string().contains("generation 5 was not minted"),
            "{error}"
        );
    });
}
