//! Tests of checkpoints: state is written run by run, merged, damaged and read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use tidemill_ir::row::Row;

use super::change::{SHARDS, add_up};
use super::merge::Parts;
use super::{merge, *};

fn directory() -> (TempDir, Arc<dyn Store>) {
    let folder = TempDir::new().unwrap();
    let store = crate::store::open(&format!("file://{}", folder.path().display())).unwrap();
    (folder, store)
}

fn row(bytes: &[u8]) -> Row {
    Row::new(bytes)
}

/// Writes changes as a run.
fn write<C: Change>(store: &Arc<dyn Store>, name: &str, changes: &[(u16, C)]) -> Run {
    let mut sum = Changes::default();
    for (key, change) in changes {
        sum.add(&row(&key.to_be_bytes()), &row(b"v"), change)
            .unwrap();
    }
    let mut parts = Parts::new(&**store, C::SUM, |n| format!("{name}-{n}"));
    for (shard, block) in sum.into_blocks().into_iter().enumerate() {
        let block = add_up(C::SUM, std::iter::once(block.bytes.as_slice()), false);
        parts.block(shard).append(block.unwrap());
    }
    parts.finish().unwrap()
}

/// Reads state with so many workers.
fn read<C: Change>(store: &Arc<dyn Store>, state: &State, peers: usize) -> BTreeMap<u16, C> {
    let mut all = BTreeMap::new();
    for index in 0..peers {
        let mut reader = Reader::<C>::share(Arc::clone(store), state, index, peers).unwrap();
        let mut last = None;
        while let Some(entries) = reader.step().unwrap() {
            for entry in entries {
                let key = u16::from_be_bytes(entry.key.bytes().try_into().unwrap());
                assert!(last < Some(key), "in order");
                last = Some(key);
                assert!(
                    all.insert(key, entry.change).is_none(),
                    "read by one worker"
                );
            }
        }
    }
    all
}

fn latest(value: Option<u8>) -> Latest {
    value.map_or(Latest::Nothing, |value| Latest::Row(7, row(&[value])))
}

fn any_run() -> impl Strategy<Value = Vec<(u16, isize)>> {
    prop::collection::vec((0_u16..300, -2_isize..3), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn runs_add_up_however_they_are_merged_and_by_how_many_they_are_read(
        runs in prop::collection::vec(any_run(), 1..8),
        merged_after in prop::collection::vec(any::<bool>(), 8),
        peers in 1_usize..6,
    ) {
        let (_folder, store) = directory();
        let mut state = State { sum: Sum::Counts, runs: Vec::new() };
        let mut rows = State { sum: Sum::Latest, runs: Vec::new() };
        let mut sums = BTreeMap::<u16, isize>::new();
        let mut last = BTreeMap::<u16, Latest>::new();
        for (number, changes) in runs.iter().enumerate() {
            let keep = |state: &mut State, run: Run| {
                state.runs.extend((!run.parts.is_empty()).then_some(run));
                let first = merge::due(&state.runs).filter(|_| merged_after[number]);
                if let Some(first) = first {
                    let name = |n| format!("{:?}-merged-{number}-{n}", state.sum);
                    let run = merge::merge(&store, state, first, name).unwrap();
                    state.runs.truncate(first);
                    state.runs.extend((!run.parts.is_empty()).then_some(run));
                }
            };
            keep(&mut state, write(&store, &format!("counts-{number}"), changes));
            let of = |change: isize| latest((change > 0).then_some(change as u8));
            let set: Vec<_> = changes.iter().map(|(key, change)| (*key, of(*change))).collect();
            keep(&mut rows, write(&store, &format!("rows-{number}"), &set));
            for (key, change) in changes {
                *sums.entry(*key).or_default() += change;
                last.insert(*key, of(*change));
            }
        }
        sums.retain(|_, sum| *sum != 0);
        last.retain(|_, latest| *latest != Latest::Nothing);
        prop_assert_eq!(read::<isize>(&store, &state, peers), sums);
        prop_assert_eq!(read::<Latest>(&store, &rows, peers), last);
    }
}

fn checkpoint(store: &Arc<dyn Store>, epoch: Epoch) -> Checkpointed {
    let run = write(
        store,
        &format!("job/checkpoint/{epoch}/part"),
        &[(1, 5_isize), (2, 6)],
    );
    let state = State {
        sum: Sum::Counts,
        runs: vec![run],
    };
    let sites = BTreeMap::from([("site".to_owned(), state)]);
    let at = Binding {
        epoch,
        ..Binding::default()
    };
    let manifest = Manifest::new(at, sites);
    let name = format!("job/checkpoint/{epoch}/manifest");
    store.put(&name, manifest.encode().unwrap()).unwrap();
    Checkpointed {
        epoch,
        manifest: name,
    }
}

#[test]
fn damage_anywhere_is_found_named_and_the_checkpoint_before_taken() {
    let (_folder, store) = directory();
    let entries = [checkpoint(&store, 10), checkpoint(&store, 20)];
    let epoch = |entries: &[Checkpointed]| newest(&*store, entries).unwrap().map(|m| m.epoch);
    assert_eq!(epoch(&entries), Some(20));
    let newer = ["job/checkpoint/20/part-0", "job/checkpoint/20/manifest"];
    for name in newer {
        let whole = store.get(name).unwrap().unwrap();
        let broken = |bytes: Option<Vec<u8>>| {
            match bytes {
                Some(bytes) => store.put(name, bytes).unwrap(),
                None => store.delete(name).unwrap(),
            }
            assert_eq!(epoch(&entries), Some(10), "{name}");
            let manifest = Manifest::read(&*store, &entries[1].manifest).unwrap();
            let error = manifest.and_then(|m| m.verify(&*store)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(error.kind(), Kind::Data);
        };
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            broken(Some(flipped));
        }
        broken(Some(whole[..whole.len() - 1].to_vec()));
        broken(Some(Vec::new()));
        broken(None);
        store.put(name, whole).unwrap();
        assert_eq!(epoch(&entries), Some(20));
    }
    store.delete("job/checkpoint/10/part-0").unwrap();
    store.delete("job/checkpoint/20/part-0").unwrap();
    assert_eq!(
        epoch(&entries),
        None,
        "the topics are read from their beginning"
    );
}

#[test]
fn another_format_is_refused_with_what_to_do() {
    let (_folder, store) = directory();
    let before = checkpoint(&store, 5);
    let entry = checkpoint(&store, 10);
    let text = String::from_utf8(store.get(&entry.manifest).unwrap().unwrap()).unwrap();
    let (_, json) = text.split_once('\n').unwrap();
    let json = json.replace("\"format\": 3", "\"format\": 99");
    let text = format!("{:016x}\n{json}", xxh3_64(json.as_bytes()));
    store.put(&entry.manifest, text.into_bytes()).unwrap();
    // Not the one before: what the other version kept would be thrown away.
    let error = newest(&*store, &[before, entry]).unwrap_err().to_string();
    for said in [
        "job/checkpoint/10/manifest",
        "has format 99, this version of tidemill reads 1",
        "start it with the version that wrote it",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn shards_are_told_by_the_high_bits_of_the_hash() {
    let mut sum = Changes::default();
    for key in 0..20_000_u16 {
        sum.add(&row(&key.to_be_bytes()), &Row::default(), &1_isize)
            .unwrap();
    }
    let blocks = sum.into_blocks();
    assert_eq!(blocks.len(), SHARDS);
    assert!(blocks.iter().all(|block| block.entries > 0));
    // A restart with another version of the program finds every key in the same shard.
    assert_eq!(row(&7_u16.to_be_bytes()).shard() >> 56, 0x90);
}

#[test]
fn changes_of_the_same_entries_take_no_more_and_more_room() {
    let mut sum = Changes::default();
    for round in 0..1000 {
        for key in 0..500_u16 {
            let change = if round % 2 == 0 { 3_isize } else { -2 };
            sum.add(&row(&key.to_be_bytes()), &row(b"a value"), &change)
                .unwrap();
        }
    }
    let blocks = sum.into_blocks();
    let bytes: usize = blocks.iter().map(|block| block.bytes.len()).sum();
    assert!(bytes < 5_000_000, "{bytes} bytes for 500 entries");
    for block in &blocks {
        let block = add_up(Sum::Counts, std::iter::once(block.bytes.as_slice()), true).unwrap();
        let mut rest = block.bytes.as_slice();
        while !rest.is_empty() {
            let (entry, after) = postcard::take_from_bytes::<(Row, Row, isize)>(rest).unwrap();
            assert_eq!(entry.2, 500);
            rest = after;
        }
    }
}
