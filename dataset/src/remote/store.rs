//! Objects of an S3-compatible store, files of a web server or under a `file://` address, read by
//! range.
//!
//! Every call blocks its thread while a runtime of its own does the work, so that readers need not
//! be asynchronous and may be called from anywhere. Requests are tried again by `object_store`
//! where that can help (time-outs, 5xx, broken connections).

use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::mpsc::{sync_channel, Receiver};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt};

use super::ranges::{Ranges, Whole};
use crate::error::DataError;

/// Requests at once.
const REQUESTS: usize = 8;

/// Bytes of an object that are read ahead.
const BLOCK_BYTES: u64 = 4 << 20;

/// Threads of the runtime.
const RUNTIME_THREADS: usize = 2;

/// How to reach a store, where the environment (`AWS_ENDPOINT_URL`, `AWS_REGION`,
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SKIP_SIGNATURE`, …) does not say it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StoreOptions {
    /// Address of an S3-compatible service, `http://` or `https://`.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Key and secret.
    pub credentials: Option<(String, String)>,
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A folder of a store. Cloning shares it.
#[derive(Clone)]
pub struct RemoteStore {
    url: String,
    inner: Arc<dyn ObjectStore>,
    ranges: Arc<Ranges>,
    prefix: ObjectPath,
}

/// The address alone: what is inside has secrets.
impl std::fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteStore({:?})", self.url)
    }
}

/// Whether a path is the address of a store (`s3://…`, `https://…`, `http://…`, `file://…`).
pub fn is_url(path: &str) -> bool {
    let kinds = ["s3://", "https://", "http://", "file://"];
    kinds.iter().any(|kind| path.starts_with(kind))
}

impl RemoteStore {
    /// The folder at `url`: `s3://bucket/prefix`, `https://host/folder` of a web server (best one
    /// that answers ranges), or `file:///folder`. Asks nobody yet.
    ///
    /// # Errors
    /// The address is none, or the environment does not fit it.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, DataError> {
        let wrong = |message: String| DataError::Store { url: url.to_owned(), message };
        let fails = |error: object_store::Error| wrong(error.to_string());
        let (inner, prefix): (Arc<dyn ObjectStore>, _) =
            if let Some(rest) = url.strip_prefix("s3://") {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(wrong("no bucket is named".to_owned()));
                }
                let store = s3(bucket, options).build().map_err(fails)?;
                (Arc::new(store), ObjectPath::parse(prefix.trim_matches('/')))
            } else if let Some(path) = url.strip_prefix("file://") {
                let root = std::path::Path::new(path);
                let store = LocalFileSystem::new_with_prefix(root).map_err(fails)?;
                (Arc::new(store), Ok(ObjectPath::default()))
            } else if let Some((server, path)) = server_and_path(url) {
                let store = web(server).build().map_err(fails)?;
                (Arc::new(store), ObjectPath::from_url_path(path))
            } else {
                return Err(wrong("neither s3:// nor https:// nor file://".to_owned()));
            };
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            ranges: Arc::new(Ranges::new(Arc::clone(&inner))),
            inner,
            prefix: prefix.map_err(|error| wrong(error.to_string()))?,
        })
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn path(&self, name: &str) -> ObjectPath {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn failed<'a>(&'a self, name: &'a str) -> impl Fn(object_store::Error) -> DataError + 'a {
        move |error| DataError::Store {
            url: format!("{}/{name}", self.url).trim_end_matches('/').to_owned(),
            message: error.to_string(),
        }
    }

    /// All objects under the folder, by their names relative to it and sorted by them, with their
    /// lengths. Where the folder itself is an object it is the only one, with an empty name.
    pub(crate) fn list(&self) -> Result<Vec<(String, u64)>, DataError> {
        let (inner, prefix) = (Arc::clone(&self.inner), self.prefix.clone());
        let objects = wait(async move {
            if !prefix.as_ref().is_empty() {
                if let Ok(object) = inner.head(&prefix).await {
                    return Ok(vec![(String::new(), object.size)]);
                }
            }
            let objects: Vec<_> = inner.list(Some(&prefix)).try_collect().await?;
            let relative = objects.into_iter().filter_map(|object| {
                let parts = object.location.prefix_match(&prefix)?;
                let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
                Some((parts.join("/"), object.size))
            });
            Ok(relative.filter(|(name, _)| !name.is_empty()).collect())
        });
        let mut objects: Vec<_> = objects.map_err(self.failed(""))?;
        objects.sort();
        Ok(objects)
    }

    /// The length of an object.
    pub(crate) fn len(&self, name: &str) -> Result<u64, DataError> {
        let (inner, path) = (Arc::clone(&self.inner), self.path(name));
        let size = wait(async move { inner.head(&path).await.map(|object| object.size) });
        size.map_err(self.failed(name))
    }

    /// Some bytes of an object, which has them.
    pub(crate) fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, DataError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (ranges, path) = (Arc::clone(&self.ranges), self.path(name));
        let bytes = wait(async move { ranges.get(&path, range).await });
        bytes.map_err(self.failed(name))
    }

    /// Ranges of objects, some at once, in the order asked for. They are in memory together.
    pub(crate) fn read_all(&self, ranges: &[(&str, Range<u64>)]) -> Result<Vec<Bytes>, DataError> {
        let ranges = ranges.iter().map(|(name, range)| (self.path(name), range.clone()));
        let ranges: Vec<_> = ranges.collect();
        let store = Arc::clone(&self.ranges);
        let bytes = wait(async move {
            let requests = ranges.into_iter().map(|(path, range)| {
                let store = Arc::clone(&store);
                async move { store.get(&path, range).await }
            });
            let requests = futures::stream::iter(requests.collect::<Vec<_>>());
            requests.buffered(REQUESTS).try_collect().await
        });
        bytes.map_err(self.failed(""))
    }

    /// A reader of a whole object of `len` bytes, one block ahead.
    pub(crate) fn reader(&self, name: &str, len: u64) -> ObjectReader {
        ObjectReader {
            store: self.clone(),
            path: self.path(name),
            len,
            next: 0,
            block: Bytes::new(),
            ahead: None,
            whole: None,
        }
    }
}

/// Chooses the TLS of all in this process that does not choose for itself: ring's, as rustls refuses to guess where both it and
/// AWS-LC are linked, and libp2p brings the latter. A program does so at its start. The first choice stays.
pub fn choose_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// `https://host` and `folder` of `https://host/folder`.
fn server_and_path(url: &str) -> Option<(&str, &str)> {
    let (kind, rest) = url.split_once("://")?;
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let end = kind.len() + "://".len() + host.len();
    matches!(kind, "https" | "http").then(|| url.split_at(end))
}

fn web(server: &str) -> HttpBuilder {
    choose_tls();
    let is_plain = server.starts_with("http://");
    HttpBuilder::new()
        .with_url(server)
        .with_client_options(ClientOptions::new().with_allow_http(is_plain))
}

fn s3(bucket: &str, options: &StoreOptions) -> AmazonS3Builder {
    choose_tls();
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    if let Some(endpoint) = &options.endpoint {
        let is_plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(is_plain);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some((key, secret)) = &options.credentials {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    builder
}

/// The runtime of all stores. It lives as long as the process: one that is dropped by asynchronous
/// code would panic.
fn runtime() -> io::Result<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<Option<tokio::runtime::Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(RUNTIME_THREADS).enable_all();
        builder.thread_name("store").build().ok()
    });
    made.as_ref().ok_or_else(|| io::Error::other("cannot start the threads of the store"))
}

/// Starts `work` and returns where its result will come.
fn start<T: Send + 'static>(
    work: impl Future<Output = Result<T, object_store::Error>> + Send + 'static,
) -> Receiver<Result<T, object_store::Error>> {
    let (sender, receiver) = sync_channel(1);
    if let Ok(runtime) = runtime() {
        runtime.spawn(async move {
            // There is room for the one result; nobody may be waiting for it any more.
            let _ = sender.try_send(work.await);
        });
    }
    receiver
}

/// Does `work` and waits for its result.
fn wait<T: Send + 'static>(
    work: impl Future<Output = Result<T, object_store::Error>> + Send + 'static,
) -> Result<T, object_store::Error> {
    receive(&start(work))
}

fn receive<T>(
    receiver: &Receiver<Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    receiver.recv().unwrap_or_else(|_| {
        Err(object_store::Error::Generic {
            store: "gauntlet",
            source: "the threads of the store have ended".into(),
        })
    })
}

/// Reads an object from start to end while the next block is on its way.
pub(crate) struct ObjectReader {
    store: RemoteStore,
    path: ObjectPath,
    len: u64,
    /// Where the block after those that are here or on their way starts.
    next: u64,
    block: Bytes,
    ahead: Option<Receiver<Result<Block, object_store::Error>>>,
    /// The object, where the server gives it as a whole and it stands behind the last block.
    whole: Option<Whole>,
}

/// Bytes of an object, and what serves the next ones.
type Block = (Bytes, Option<Whole>);

impl ObjectReader {
    fn ask(&mut self) {
        let range = self.next..self.len.min(self.next + BLOCK_BYTES);
        self.next = range.end;
        self.ahead = (!range.is_empty()).then(|| {
            let (ranges, path) = (Arc::clone(&self.store.ranges), self.path.clone());
            let whole = self.whole.take();
            start(async move { ranges.next(&path, range, whole).await })
        });
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            if self.ahead.is_none() {
                self.ask();
            }
            let Some(ahead) = self.ahead.take() else {
                return Ok(0);
            };
            (self.block, self.whole) = receive(&ahead).map_err(io::Error::other)?;
            self.ask();
        }
        let len = buffer.len().min(self.block.len());
        buffer[..len].copy_from_slice(&self.block.split_to(len));
        Ok(len)
    }
}
