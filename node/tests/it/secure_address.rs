//! A peer behind TLS.

use std::{fs, io::Read, net::TcpListener};

use crate::process::Node;

/// Any peer.
const PEER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

/// A root of trust, so that the test needs none of the machine; nothing is signed by it.
const ROOT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBiTCCAS+gAwIBAgIUWScygg5qbxd1mi1ccZAdaMBc878wCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOcm9vdCBvZiBhIHRlc3QwIBcNMjYxMTI5MTIxMTA0WhgPMjEy
NjExMDUxMjExMDRaMBkxFzAVBgNVBAMMDnJvb3Qgb2YgYSB0ZXN0MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEwTGGC7/ef71N5BoHXsu9lSmIabuERFbDzNePRNpi
KdtZAyVcsGD8CtiCb1vg7inDuUaCz53RW/9/Ibm7KAroaaNTMFEwHQYDVR0OBBYE
FHv12EHr30XgK/Qp1NJ9RYQ6NlyfMB8GA1UdIwQYMBaAFHv12EHr30XgK/Qp1NJ9
RYQ6NlyfMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgE5LHkKyN
X2Tsb7a7WC7pWbNLcbjiXIjMkCctwGbR+CsCIQDGCSGWKnetk/5qy/rx2AJKBLYZ
mY78BHqgCHzFUeDASQ==
-----END CERTIFICATE-----
";

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

#[test]
fn an_address_with_tls_is_dialled() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("root.pem");
    fs::write(&root, ROOT).expect("the root can be written");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();

    let bootnode = format!("/ip4/127.0.0.1/tcp/{port}/wss/p2p/{PEER}");
    let key = "01".repeat(32);
    let args = ["--chain", "local", "--alice", "--node-key", &key, "--bootnodes", &bootnode];
    let root = root.to_str().expect("the path is text");
    let _node = Node::start_with(folder.path(), &args, &[("SSL_CERT_FILE", root)]);

    let (mut stream, _) = listener.accept().expect("the node connects");
    let mut first = [0];
    stream.read_exact(&mut first).expect("the node speaks first");
    assert_eq!(first, [HANDSHAKE]);
}
