//! A directory or an S3 bucket, through `object_store`.
//!
//! A directory's objects are files: staged beside their name, synced, linked or renamed to it, and
//! the folder synced, all by `object_store`. On S3 put-if-absent is `If-None-Match: *`.
//!
//! Calls block the calling thread, which may belong to an async runtime. S3's connections are
//! driven by one thread of a runtime of its own; a directory needs none.

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
use tidemill_log::failpoint::{self, Point};
use tokio::runtime::{EnterGuard, Runtime};
use tokio::task::JoinSet;

use super::contract::{self, Store};
use crate::{Error, Kind, Result};

/// How often one request to S3 is tried again before the caller hears of it, who goes on trying.
const S3_RETRIES_MAX: usize = 3;
/// How long that may take.
const S3_RETRY_MAX: Duration = Duration::from_secs(20);
/// Requests to S3 for one caller that are under way at a time.
const S3_REQUESTS_MAX: usize = 32;
/// A staged file is left alone for this long: its writer may still be at it.
const STAGED_AGE_MIN: Duration = Duration::from_secs(3600);

/// Objects below a directory or a bucket's prefix.
pub(super) struct Objects {
    /// What the user named, for errors.
    place: String,
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// The directory, if it is one.
    directory: Option<PathBuf>,
    runtime: Option<Runtime>,
}

impl Objects {
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

    pub(super) fn s3(given: &str) -> Result<Self> {
        let place = format!("s3://{given}");
        let (bucket, prefix) = given.split_once('/').unwrap_or((given, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', '?', '#']) {
            let why = "expected s3://BUCKET/PREFIX, with credentials, region and endpoint in the \
                       AWS_… variables";
            return Err(unusable(&place, why));
        }
        let root = Path::parse(prefix).map_err(|error| unusable(&place, error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::with_source(Kind::Retry, "cannot start the thread `s3`", error)
            })?;
        // An error says that one is installed already, which serves as well.
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

    fn object(&self, name: &str) -> Result<Path> {
        let below = Path::parse(name).map_err(|error| {
            let what = format!("object `{name}`: this is no name for one");
            Error::with_source(Kind::Bug, what, error)
        })?;
        Ok(self.root.parts().chain(below.parts()).collect())
    }

    /// What a future of the store needs around it while it is waited for.
    fn context(&self) -> Option<EnterGuard<'_>> {
        self.runtime.as_ref().map(Runtime::enter)
    }

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
            // The answer to a wrong bucket differs only in its text from that to a missing object.
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

    /// Asks for each of these objects, for some at a time; `answered` hears of each answer.
    fn ask_all<T, F>(
        &self,
        runtime: &Runtime,
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
                    let task = asked.spawn_on(request, runtime.handle());
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

    /// Makes the names in an object's folder durable: what is there may be of a writer that died,
    /// or got an error, before it could.
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
                // A directory that nobody wrote to yet.
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

impl Drop for Objects {
    fn drop(&mut self) {
        // Dropping a runtime waits for it, which a thread of another runtime must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets an endpoint that begins with `http://` be spoken to without TLS: who names it means that.
fn over_http(builder: AmazonS3Builder) -> std::result::Result<AmazonS3Builder, String> {
    // The order in which the builder looks at them.
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
    // Whoever said no to plain HTTP hears of it here, and not of a refused URL at each request.
    match std::env::var("AWS_ALLOW_HTTP").map(|said| said.to_ascii_lowercase()) {
        Ok(said) if ["false", "0", "no", "off", "f", "n"].contains(&said.as_str()) => Err(format!(
            "{name} is `{endpoint}`, and AWS_ALLOW_HTTP={said} forbids plain HTTP; give an \
             https:// endpoint, or unset AWS_ALLOW_HTTP"
        )),
        _ => Ok(builder.with_allow_http(true)),
    }
}

/// Removes staged files (`NAME#NUMBER`, as `object_store` calls them) that are old.
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

/// The path from the root on, through what there is of it. (`canonicalize` wants all of it.)
fn absolute(path: &FilePath) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find(|ancestor| ancestor.exists());
    let there = there.unwrap_or(&path);
    let mut absolute = std::fs::canonicalize(there)?;
    absolute.extend(path.strip_prefix(there).unwrap_or(FilePath::new("")));
    Ok(absolute)
}

/// No such object, as far as the answer tells: a missing bucket is told apart.
fn is_missing(error: &StoreError) -> bool {
    matches!(error, StoreError::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}

/// What the operating system said, if it was asked.
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
