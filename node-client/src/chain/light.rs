//! A light client in the place of a node: it follows the finality of a chain by itself, from the chain's specification, and asks the
//! chain's full nodes for what is read, with proofs.

use std::{path::Path, time::Duration};

use subxt_rpcs::client::{LightClient, RpcClient};

/// What an address that names a specification begins with.
const SCHEME: &str = "light:";

/// Bytes of a specification, at most: the runtime's code in hexadecimal, several times over.
const SPEC_BYTES_MAX: u64 = 64 << 20;

/// How long a light client may take until it answers: it connects, catches up with finality and loads the runtime.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The same where there is nobody else to ask.
pub(super) const ALONE_TIMEOUT: Duration = Duration::from_secs(55);

/// The path of the specification in an address of the form `light:PATH`.
pub(super) fn spec_path(url: &str) -> Option<&Path> {
    url.strip_prefix(SCHEME).map(Path::new)
}

/// Starts a light client of the chain that `path` specifies, with `bootNodes` in it. It lives as long as what is returned.
///
/// # Errors
/// The file cannot be read or specifies no chain.
pub(super) fn open(path: &Path) -> Result<RpcClient, String> {
    let len = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if len > SPEC_BYTES_MAX {
        return Err(format!("{len} bytes are no specification of a chain"));
    }
    let spec = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (_, rpc) = LightClient::relay_chain(spec.as_str()).map_err(|error| error.to_string())?;
    Ok(RpcClient::new(rpc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_light_clients_name_a_file() {
        assert_eq!(spec_path("light:chain.json"), Some(Path::new("chain.json")));
        assert_eq!(spec_path("ws://127.0.0.1:9944"), None);
    }

    #[tokio::test]
    async fn what_specifies_no_chain_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(&folder.path().join("none.json")).is_err());
        let path = folder.path().join("chain.json");
        for text in ["", "{}", "[1, 2", "{\"name\": \"x\"}"] {
            std::fs::write(&path, text).unwrap();
            assert!(open(&path).is_err(), "{text}");
        }
    }
}
