//! The addresses of a chain's nodes, and how each is reached.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use subxt::ext::jsonrpsee::ws_client::WsClientBuilder;
use subxt_rpcs::RpcClient;

use super::light;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node may take to answer one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an answer of the node, at most.
const RESPONSE_BYTES_MAX: u32 = 64 << 20;

/// Nodes (`ws://…`) and light clients (`light:PATH` of a chain's specification), in the order in which they are tried.
pub(super) struct Endpoints {
    pub(super) urls: Vec<String>,
    /// The light clients that run, by their place: one that is started again catches up again.
    lights: Mutex<HashMap<usize, RpcClient>>,
}

impl Endpoints {
    pub(super) fn new(urls: &[String]) -> Self {
        Self { urls: urls.to_vec(), lights: Mutex::default() }
    }

    /// Whether one is a light client.
    pub(super) fn is_light(&self, node: usize) -> bool {
        light::spec_path(&self.urls[node]).is_some()
    }

    /// How long one may take until it answers, before the next is tried. A light client goes on catching up meanwhile.
    pub(super) fn patience(&self, node: usize) -> Duration {
        match (self.is_light(node), self.urls.len()) {
            (true, 1) => light::ALONE_TIMEOUT,
            (true, _) => light::CONNECT_TIMEOUT,
            (false, _) => CONNECT_TIMEOUT,
        }
    }

    /// A connection to a node, or the light client.
    ///
    /// # Errors
    /// It does not answer; the specification cannot be read.
    pub(super) async fn open(&self, node: usize) -> Result<RpcClient, String> {
        let url = &self.urls[node];
        if let Some(spec) = light::spec_path(url) {
            let mut lights = self.lights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(running) = lights.get(&node) {
                return Ok(running.clone());
            }
            let started =
                light::open(spec).map_err(|error| format!("{}: {error}", spec.display()))?;
            lights.insert(node, started.clone());
            return Ok(started);
        }
        let inner = WsClientBuilder::default()
            .max_response_size(RESPONSE_BYTES_MAX)
            .request_timeout(REQUEST_TIMEOUT)
            .build(url)
            .await
            .map_err(|error| error.to_string())?;
        Ok(RpcClient::new(inner))
    }
}
