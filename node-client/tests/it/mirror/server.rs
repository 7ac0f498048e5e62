//! An S3 server on this machine, of a folder, that can be told to fail.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hyper::{body::Incoming, service::service_fn, Request, StatusCode};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use node_client::mirror::{Mirror, MirrorPlace};
use protocol::Hash;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder, HttpResponse};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

const BUCKET: &str = "bucket";
const FOLDER: &str = "gauntlet/00/7";

/// Whether a request, named by method and path with its query, fails.
type Fails = Box<dyn FnMut(&str) -> bool + Send>;

#[derive(Default)]
struct Said {
    /// The requests so far.
    asked: Vec<String>,
    fails: Option<Fails>,
}

pub(super) struct Server {
    folder: TempDir,
    address: String,
    said: Arc<Mutex<Said>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("key", "secret"));
        let s3 = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let said = Arc::new(Mutex::new(Said::default()));
        let all = said.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (s3, said) = (s3.clone(), all.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (s3, fails) = (s3.clone(), says_no(&said, &request));
                    async move {
                        if !fails {
                            return hyper::service::Service::call(&s3, request).await;
                        }
                        let mut response = HttpResponse::new(s3s::Body::empty());
                        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                        Ok(response)
                    }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { folder, address, said, task }
    }

    /// The mirror in its bucket.
    pub(super) fn mirror(&self) -> Mirror {
        at(&self.address)
    }

    /// The same for who has another key.
    pub(super) fn mirror_for(&self, key: &str) -> Mirror {
        at_with(&self.address, key)
    }

    /// Lets requests fail from now on, or none.
    pub(super) fn fail(&self, fails: Option<Fails>) {
        let mut said = self.said.lock().unwrap();
        said.fails = fails;
        said.asked.clear();
    }

    /// The requests since then, as `PUT /bucket/folder/id?query`.
    pub(super) fn asked(&self) -> Vec<String> {
        self.said.lock().unwrap().asked.clone()
    }

    /// The file in which an object is.
    pub(super) fn file(&self, id: &Hash) -> PathBuf {
        self.folder.path().join(BUCKET).join(FOLDER).join(hex::encode(id))
    }
}

/// The mirror at an address of this machine.
pub(super) fn at(address: &str) -> Mirror {
    at_with(address, "key")
}

fn at_with(address: &str, key: &str) -> Mirror {
    let place = MirrorPlace {
        url: format!("s3://{BUCKET}/gauntlet"),
        endpoint: Some(address.to_owned()),
        region: Some("us-east-1".to_owned()),
        credentials: Some((key.to_owned(), "secret".to_owned())),
    };
    Mirror::open(&place, "00/7").unwrap()
}

fn says_no(said: &Mutex<Said>, request: &Request<Incoming>) -> bool {
    let name = format!("{} {}", request.method(), request.uri());
    let mut said = said.lock().unwrap();
    let fails = said.fails.as_mut().is_some_and(|fails| fails(&name));
    said.asked.push(name);
    fails
}
