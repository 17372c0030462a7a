//! The engine for a directory or an S3 bucket, through the crate `object_store`.
//!
//! The objects of a directory are files. `object_store` writes a file beside its final name, syncs
//! the file, links or renames it, and syncs the folder. On S3, put-if-absent is a conditional write
//! (`If-None-Match: *`).
//!
//! Calls block the calling thread, which may belong to an async runtime. The runtime of the process
//! ([`tidemill_log::io`]) drives the connections to S3. A directory needs no runtime.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_executor::{block_on, block_on_stream};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
};
use tidemill_log::failpoint::Point;
use tidemill_log::{Error, Kind, Result, failpoint, io};
use tokio::runtime::{EnterGuard, Handle};
use tokio::task::JoinSet;

use super::contract;
use super::contract::Store;

/// Retries of one request to S3 before the caller gets an error. Callers retry in turn.
const S3_RETRIES_MAX: usize = 3;
/// Longest time that these retries take.
const S3_RETRY_MAX: Duration = Duration::from_secs(20);
/// Most requests to S3 that are under way for one call.
const S3_REQUESTS_MAX: usize = 32;
/// Temporary files younger than this are left alone, because their writers may still be at work.
const STAGED_AGE_MIN: Duration = Duration::from_secs(3600);

/// The objects below a directory, or below a prefix of a bucket.
pub(super) struct Objects {
    /// The URL as the user wrote it, for errors.
    place: String,
    /// The client of the object store.
    store: Arc<dyn ObjectStore>,
    /// The prefix of every object's path.
    root: Path,
    /// The directory; `None` on S3.
    directory: Option<PathBuf>,
    /// The runtime of the connections to S3; `None` for a directory.
    runtime: Option<Handle>,
}

impl Objects {
    /// The store in a directory, which need not exist yet.
    ///
    /// # Errors
    /// `Data` when the path is not one, or is no directory.
    pub(super) fn directory(given: &str) -> Result<Self> {
        let place = format!("file://{given}");
        let directory = absolute(FilePath::new(given)).map_err(|error| unusable(&place, error))?;
        let root = Path::from_absolute_path(&directory).map_err(|error| unusable(&place, error))?;
        if directory.exists() && !directory.is_dir() {
            return Err(unusable(&place, "it is no directory"));
        }
        Ok(Self {
            place,
            store: Arc::new(LocalFileSystem::new().with_fsync(true)),
            root,
            directory: Some(directory),
            runtime: None,
        })
    }

    /// The store in an S3 bucket, given as `BUCKET[/PREFIX]`. Nothing is sent to S3 yet.
    ///
    /// # Errors
    /// `Data` when the bucket, the prefix or an `AWS_…` variable is wrong; `Retry` when the thread
    /// cannot be started.
    pub(super) fn s3(given: &str) -> Result<Self> {
        let place = format!("s3://{given}");
        let (bucket, prefix) = given.split_once('/').unwrap_or((given, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', '?', '#']) {
            let why = "expected s3://BUCKET/PREFIX, with credentials, region and endpoint in the \
                       AWS_… variables";
            return Err(unusable(&place, why));
        }
        let root = Path::parse(prefix).map_err(|error| unusable(&place, error))?;
        let runtime = io::runtime()?;
        // An error says that a provider is installed already, which is as good.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let builder = over_http(AmazonS3Builder::from_env());
        let store = builder
            .map_err(|why| unusable(&place, why))?
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(RetryConfig {
                max_retries: S3_RETRIES_MAX,
                retry_timeout: S3_RETRY_MAX,
                ..RetryConfig::default()
            })
            .build()
            .map_err(|error| unusable(&place, error))?;
        Ok(Self {
            place,
            store: Arc::new(store),
            root,
            directory: None,
            runtime: Some(runtime),
        })
    }

    /// The full path of an object; `Bug` if the name cannot be one.
    fn object(&self, name: &str) -> Result<Path> {
        let below = Path::parse(name).map_err(|error| {
            let what = format!("object `{name}`: this is no name for one");
            Error::with_source(Kind::Bug, what, error)
        })?;
        Ok(self.root.parts().chain(below.parts()).collect())
    }

    /// Enters the runtime while a future of the store is waited for.
    fn context(&self) -> Option<EnterGuard<'_>> {
        self.runtime.as_ref().map(Handle::enter)
    }

    /// The error of a request: `Data` if trying again is useless, `Retry` otherwise.
    fn failed(&self, name: &str, error: StoreError) -> Error {
        let kind = match (&error, io_kind(&error)) {
            (_, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) => {
                return contract::full(name, &self.place, error);
            }
            (
                StoreError::PermissionDenied { .. }
                | StoreError::Unauthenticated { .. }
                | StoreError::NotImplemented { .. }
                | StoreError::NotSupported { .. },
                _,
            )
            | (
                _,
                Some(
                    std::io::ErrorKind::PermissionDenied
                    | std::io::ErrorKind::ReadOnlyFilesystem
                    | std::io::ErrorKind::NotADirectory
                    | std::io::ErrorKind::IsADirectory,
                ),
            ) => Kind::Data,
            // The answer for a wrong bucket differs from the answer for a missing object only in
            // its text.
            _ if error.to_string().contains("NoSuchBucket") => Kind::Data,
            _ => Kind::Retry,
        };
        let what = format!("object `{name}` at {}: {error}", self.place);
        let refused = matches!(
            error,
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }
        );
        Error::with_source(kind, what, error).refused_if(refused)
    }

    /// Writes an object. Returns false if it must not exist and does.
    ///
    /// In a directory, a crash between two steps leaves either no object or the whole object:
    ///
    /// ```text
    /// write NAME#N ─► sync the file ─► link (put_new) or rename (put) to NAME ─► sync the folder
    /// ```
    ///
    /// # Errors
    /// `Data` when the store refuses; `Retry` otherwise, also when the disk is full.
    fn put_as(&self, name: &str, bytes: Vec<u8>, mode: PutMode) -> Result<bool> {
        let path = self.object(name)?;
        let _context = self.context();
        match block_on(
            self.store
                .put_opts(&path, PutPayload::from(bytes), mode.into()),
        ) {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => {
                self.sync_folder(name)?;
                Ok(false)
            }
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// Sends a request for each of these objects, up to [`S3_REQUESTS_MAX`] at a time. `answered`
    /// is called after each answer. The answers are in the order of the names; `None` for missing
    /// objects.
    fn ask_all<T, F>(
        &self,
        runtime: &Handle,
        names: &[String],
        ask: impl Fn(Arc<dyn ObjectStore>, Path) -> F,
        answered: impl Fn(),
    ) -> Result<Vec<Option<T>>>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let mut answers: Vec<Option<T>> = names.iter().map(|_| None).collect();
        let mut waiting = names.iter().zip(&mut answers);
        let mut asked = JoinSet::new();
        let mut places = HashMap::new();
        block_on(async {
            loop {
                while asked.len() < S3_REQUESTS_MAX
                    && let Some((name, place)) = waiting.next()
                {
                    let request = ask(Arc::clone(&self.store), self.object(name)?);
                    let task = asked.spawn_on(request, runtime);
                    places.insert(task.id(), (name, place));
                }
                let Some(joined) = asked.join_next_with_id().await else {
                    return Ok(());
                };
                let (task, answer) = joined.map_err(|error| {
                    Error::with_source(Kind::Bug, "a request to S3 was given up", error)
                })?;
                let Some((name, place)) = places.remove(&task) else {
                    continue; // every task is there
                };
                match answer {
                    Ok(answer) => *place = Some(answer),
                    Err(error) if is_missing(&error) => {}
                    Err(error) => return Err(self.failed(name, error)),
                }
                answered();
            }
        })?;
        Ok(answers)
    }

    /// Syncs the folder of an object that already exists: its writer may have died, or got an
    /// error, before the file's name was durable.
    fn sync_folder(&self, name: &str) -> Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let file = directory.join(name);
        let folder = file.parent().unwrap_or(directory);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| {
                let what = format!(
                    "the folder of object `{name}` at {} cannot be synced",
                    self.place
                );
                Error::with_source(Kind::Retry, what, error)
            })
    }
}

impl Store for Objects {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.object(name)?;
        let _context = self.context();
        let got = block_on(async { self.store.get(&path).await?.bytes().await });
        match got {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.object(name)?;
        let _context = self.context();
        let length = range.end - range.start;
        match block_on(self.store.get_range(&path, range.clone())) {
            Ok(bytes) if bytes.len() as u64 == length => Ok(bytes.into()),
            Ok(_) => Err(contract::shorter(name, &self.place, &range)),
            Err(error) if is_missing(&error) => Err(contract::missing(name, &self.place)),
            Err(error) => match block_on(self.store.head(&path)) {
                Ok(there) if there.size < range.end => {
                    Err(contract::shorter(name, &self.place, &range))
                }
                _ => Err(self.failed(name, error)),
            },
        }
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.put_as(name, bytes, PutMode::Overwrite).map(|_| ())
    }

    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        self.put_as(name, bytes, PutMode::Create)
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let path = self.object(folder)?;
        let _context = self.context();
        let mut objects = Vec::new();
        for object in block_on_stream(self.store.list(Some(&path))) {
            let object = match object {
                Ok(object) => object,
                // A directory to which nobody has written yet.
                Err(error) if is_missing(&error) => continue,
                Err(error) => return Err(self.failed(folder, error)),
            };
            let below = object.location.prefix_match(&self.root);
            let below = below.into_iter().flatten().collect::<Path>();
            objects.push((below.to_string(), object.size));
        }
        objects.sort_unstable();
        Ok(objects)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.object(name)?;
        let _context = self.context();
        match block_on(self.store.delete(&path)) {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    fn get_all(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let Some(runtime) = &self.runtime else {
            return names.iter().map(|name| self.get(name)).collect();
        };
        let ask = |store: Arc<dyn ObjectStore>, path: Path| async move {
            store.get(&path).await?.bytes().await.map(Vec::from)
        };
        self.ask_all(runtime, names, ask, || {})
    }

    fn delete_all(&self, names: &[String], between: Point) -> Result<()> {
        let Some(runtime) = &self.runtime else {
            return contract::delete_each(self, names, between);
        };
        let ask =
            |store: Arc<dyn ObjectStore>, path: Path| async move { store.delete(&path).await };
        let answered = || failpoint::hit(between);
        self.ask_all(runtime, names, ask, answered).map(drop)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(name))
    }

    fn sweep(&self, folder: &str) -> Result<()> {
        match &self.directory {
            Some(directory) => sweep(&directory.join(folder)).map_err(|error| {
                let what = format!("folder `{folder}` at {} cannot be swept", self.place);
                Error::with_source(Kind::Retry, what, error)
            }),
            None => Ok(()),
        }
    }
}

/// Allows plain HTTP if the endpoint begins with `http://`, because the user asked for it so.
///
/// # Errors
/// A reason, when the endpoint has no known scheme, or `AWS_ALLOW_HTTP` forbids plain HTTP.
fn over_http(builder: AmazonS3Builder) -> std::result::Result<AmazonS3Builder, String> {
    // The order in which the builder reads these settings.
    let names = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let mut given = names.iter().map(|key| (key, builder.get_config_value(key)));
    let Some((key, Some(endpoint))) = given.find(|(_, value)| value.is_some()) else {
        return Ok(builder);
    };
    let name = match key {
        AmazonS3ConfigKey::S3Endpoint => "AWS_ENDPOINT_URL_S3",
        _ => "AWS_ENDPOINT_URL",
    };
    if endpoint.starts_with("https://") {
        return Ok(builder);
    }
    if !endpoint.starts_with("http://") {
        return Err(format!(
            "{name} is `{endpoint}`, expected https://HOST[:PORT] or http://HOST[:PORT]"
        ));
    }
    // A user who forbade plain HTTP gets the reason here, and not a refused URL at each request.
    match std::env::var("AWS_ALLOW_HTTP").map(|said| said.to_ascii_lowercase()) {
        Ok(said) if ["false", "0", "no", "off", "f", "n"].contains(&said.as_str()) => Err(format!(
            "{name} is `{endpoint}`, and AWS_ALLOW_HTTP={said} forbids plain HTTP; give an \
             https:// endpoint, or unset AWS_ALLOW_HTTP"
        )),
        _ => Ok(builder.with_allow_http(true)),
    }
}

/// Removes old temporary files (`NAME#NUMBER`, the names that `object_store` gives them).
fn sweep(folder: &FilePath) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep(&entry.path())?;
            continue;
        }
        let name = entry.file_name();
        let staged = name.to_str().and_then(|name| name.rsplit_once('#'));
        let staged = staged.is_some_and(|(_, number)| number.parse::<u64>().is_ok());
        let old = |at: SystemTime| at.elapsed().is_ok_and(|age| age >= STAGED_AGE_MIN);
        if staged && entry.metadata()?.modified().is_ok_and(old) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The absolute path, with symbolic links resolved in the part that exists. (`canonicalize`
/// requires that the whole path exists.)
fn absolute(path: &FilePath) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find(|ancestor| ancestor.exists());
    let there = there.unwrap_or(&path);
    let mut absolute = std::fs::canonicalize(there)?;
    absolute.extend(path.strip_prefix(there).unwrap_or(FilePath::new("")));
    Ok(absolute)
}

/// Whether the answer says that the object does not exist. A missing bucket is a different error.
fn is_missing(error: &StoreError) -> bool {
    matches!(error, StoreError::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}

/// The error of the operating system in the chain of causes, if there is one.
fn io_kind(error: &StoreError) -> Option<std::io::ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

/// The `Data` error of a URL that cannot be used as a store.
fn unusable(place: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let why = why.into();
    Error::with_source(Kind::Data, format!("store `{place}`: {why}"), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(key: AmazonS3ConfigKey, endpoint: &str) -> std::result::Result<String, String> {
        let builder = over_http(AmazonS3Builder::new().with_config(key, endpoint))?;
        let allow = AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp);
        Ok(builder.get_config_value(&allow).unwrap())
    }

    #[test]
    fn an_endpoint_says_whether_it_speaks_tls() {
        use AmazonS3ConfigKey::{Endpoint, S3Endpoint};
        assert_eq!(allows(Endpoint, "http://h:9000").unwrap(), "true");
        assert_eq!(allows(S3Endpoint, "http://h:9000").unwrap(), "true");
        assert_eq!(allows(Endpoint, "https://h").unwrap(), "false");
        let said = allows(Endpoint, "h:9000").unwrap_err();
        assert!(said.contains("AWS_ENDPOINT_URL is `h:9000`"), "{said}");
    }
}
