//! The journal as numbered objects in a directory, through `object_store`.
//!
//! A binding is the object `JOB/journal/NUMBER` (20 digits), created with put-if-absent. In:
//! bindings, in order. Out: the same, in order.
//!
//! 1. An object appears under its number only when its content is on disk: it is staged, synced,
//!    linked to its name, and the directory is synced before `append` returns.
//! 2. A collapsed object stands for all lower numbers: whatever has one of those is ignored, so
//!    deleting them may stop anywhere. They are deleted in ascending order.
//! 3. Numbers from the newest collapsed object on (or from 1) have no gap.
//! 4. A writer that was overtaken finds its number taken, or its predecessor deleted (by 2, the
//!    predecessor goes before the number itself becomes free): either way it is fenced.

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::{Binding, Journal};
use crate::{Epoch, Error, Kind, Result};

/// The journal of one job below a directory.
pub(super) struct Directory {
    store: LocalFileSystem,
    objects: Path,
    staging: Path,
    /// The last number that this process read at opening, or wrote.
    last: Mutex<Last>,
}

struct Last {
    number: u64,
    epoch: Epoch,
}

#[derive(Serialize, Deserialize)]
struct Object {
    /// Whether the object stands for all lower numbers too.
    #[serde(default)]
    collapsed: bool,
    binding: Binding,
}

impl Directory {
    pub(super) fn open(directory: &str, job: &str) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(
                Kind::Data,
                format!("journal directory `{directory}`: {error}"),
            )
        };
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(|error| failed(&error))?;
        let root = Path::from_iter([job]);
        let journal = Self {
            store,
            objects: root.clone().join("journal"),
            staging: root.join("staging"),
            last: Mutex::new(Last {
                number: 0,
                epoch: 0,
            }),
        };
        for prefix in [&journal.objects, &journal.staging] {
            let path = journal.file(prefix)?;
            std::fs::create_dir_all(&path).map_err(|error| failed(&error))?;
            // The new directories' own names must last as well.
            for parent in path
                .ancestors()
                .skip(1)
                .take(3)
                .filter(|p| p.starts_with(directory))
            {
                sync(parent.to_path_buf())?;
            }
        }
        if let Some((number, object)) = journal.objects()?.pop() {
            *journal.lock() = Last {
                number,
                epoch: object.binding.epoch,
            };
        }
        Ok(journal)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, number: u64) -> Path {
        self.objects.clone().join(format!("{number:020}"))
    }

    fn file(&self, path: &Path) -> Result<PathBuf> {
        self.store
            .path_to_filesystem(path)
            .map_err(|error| failed(path, error))
    }

    /// The numbers there are, ascending.
    fn numbers(&self) -> Result<Vec<u64>> {
        let listed = wait(self.store.list_with_delimiter(Some(&self.objects)))
            .map_err(|error| failed(&self.objects, error))?;
        let numbers = listed.objects.iter().map(|object| {
            let name = object.location.filename().unwrap_or_default();
            let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
            let number = name.parse().ok().filter(|_| digits);
            number.ok_or_else(|| damaged(&object.location, "its name is no number of 20 digits"))
        });
        let mut numbers = numbers.collect::<Result<Vec<u64>>>()?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The objects that count, ascending: from the newest collapsed one on.
    fn objects(&self) -> Result<Vec<(u64, Object)>> {
        let mut objects: Vec<(u64, Object)> = Vec::new();
        for number in self.numbers()?.into_iter().rev() {
            if let Some((above, _)) = objects.last()
                && above - number != 1
            {
                return Err(damaged(&self.name(above - 1), "it is missing"));
            }
            let object = self.get(number)?;
            let done = object.collapsed;
            objects.push((number, object));
            if done {
                break;
            }
        }
        match objects.last() {
            Some((first, object)) if *first != 1 && !object.collapsed => {
                Err(damaged(&self.name(first - 1), "it is missing"))
            }
            _ => {
                objects.reverse();
                Ok(objects)
            }
        }
    }

    fn get(&self, number: u64) -> Result<Object> {
        let name = self.name(number);
        let bytes = wait(async { self.store.get(&name).await?.bytes().await })
            .map_err(|error| failed(&name, error))?;
        serde_json::from_slice(&bytes).map_err(|error| damaged(&name, error))
    }

    /// Writes an object to disk under a name that no reader looks at.
    fn stage(&self, number: u64, object: &Object) -> Result<Path> {
        let staged = self
            .staging
            .clone()
            .join(format!("{number:020}-{}", std::process::id()));
        let json = serde_json::to_vec(object)
            .map_err(|error| Error::with_source(Kind::Bug, "a binding makes no JSON", error))?;
        wait(self.store.put(&staged, PutPayload::from(json)))
            .map_err(|error| failed(&staged, error))?;
        sync(self.file(&staged)?)?;
        Ok(staged)
    }

    fn delete(&self, name: &Path) -> Result<()> {
        match wait(self.store.delete(name)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(name, error)),
        }
    }

    /// Whether this process was overtaken: see invariant 4.
    fn overtaken(&self, number: u64) -> Result<bool> {
        if number == 1 {
            return Ok(self.numbers()?.last().is_some_and(|newest| *newest > 1));
        }
        let predecessor = self.name(number - 1);
        match wait(self.store.head(&predecessor)) {
            Ok(_) => Ok(false),
            Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(failed(&predecessor, error)),
        }
    }
}

impl Journal for Directory {
    fn read(&self) -> Result<Vec<Binding>> {
        Ok(self
            .objects()?
            .into_iter()
            .map(|(_, object)| object.binding)
            .collect())
    }

    fn append(&self, binding: &Binding) -> Result<()> {
        let mut last = self.lock();
        super::check_order(last.epoch, binding)?;
        let number = last.number + 1;
        let name = self.name(number);
        if self.overtaken(number)? {
            return Err(super::fenced(&name));
        }
        let staged = self.stage(
            number,
            &Object {
                collapsed: false,
                binding: binding.clone(),
            },
        )?;
        let linked = wait(self.store.copy_if_not_exists(&staged, &name));
        self.delete(&staged)?;
        match linked {
            Ok(()) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Err(super::fenced(&name)),
            Err(error) => return Err(failed(&name, error)),
        }
        if self.overtaken(number)? {
            // A collapsed object stands above: the new one is ignored, and in no one's way.
            self.delete(&name)?;
            return Err(super::fenced(&name));
        }
        sync(self.file(&self.objects)?)?;
        *last = Last {
            number,
            epoch: binding.epoch,
        };
        Ok(())
    }

    fn collapse(&self, epoch: Epoch) -> Result<()> {
        let _last = self.lock();
        let mut objects = self.objects()?;
        objects.retain(|(_, object)| object.binding.epoch <= epoch);
        let Some((number, collapsed)) = objects.last().map(|(n, object)| (*n, object.collapsed))
        else {
            return Ok(());
        };
        if !collapsed {
            let bindings = objects.into_iter().map(|(_, object)| object.binding);
            let object = Object {
                collapsed: true,
                binding: super::merge(bindings),
            };
            let staged = self.stage(number, &object)?;
            let name = self.name(number);
            wait(self.store.rename(&staged, &name)).map_err(|error| failed(&name, error))?;
            sync(self.file(&self.objects)?)?;
        }
        for old in self.numbers()?.into_iter().take_while(|old| *old < number) {
            self.delete(&self.name(old))?;
        }
        Ok(())
    }
}

fn failed(path: &Path, error: object_store::Error) -> Error {
    Error::with_source(
        Kind::Retry,
        format!("journal object `{path}`: {error}"),
        error,
    )
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Data,
        format!("journal object `{path}` is damaged: {why}"),
    )
}

/// `LocalFileSystem` does not sync, so we do: files and, for their names, directories.
fn sync(path: PathBuf) -> Result<()> {
    File::open(&path)
        .and_then(|file| file.sync_all())
        .map_err(|error| {
            Error::with_source(
                Kind::Retry,
                format!("`{}` cannot be synced", path.display()),
                error,
            )
        })
}

/// Runs one of the store's futures. `LocalFileSystem` works within the poll, or on tokio's blocking
/// threads when the caller's thread belongs to a runtime; either way this thread may wait.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
