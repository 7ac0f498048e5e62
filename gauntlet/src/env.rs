//! Lists every environment variable that is read. A flag or a configuration file wins over it. Beside these, `data` and
//! `[mirror]` reach S3-compatible stores by the usual `AWS_…` variables, which the `object_store` crate reads.

/// Filter of the log, in `tracing`'s syntax (`info`, `gauntlet=debug,libp2p=warn`).
pub const LOG: &str = "GAUNTLET_LOG";

/// WebSocket address of the chain, for the commands that ask it.
pub const URL: &str = "GAUNTLET_URL";

/// The chain that is asked where [`URL`] is not set: the node's default port on this machine.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:9944";

/// The `gauntlet-node` that `localnet` and `audit` start.
pub const NODE: &str = "GAUNTLET_NODE";

/// Folder in which `localnet` makes run folders.
pub const RUNS: &str = "GAUNTLET_RUNS";

/// Folder of the package that cargo runs, which it sets; where `localnet` looks for Cargo.lock after the current folder.
pub const PACKAGE: &str = "CARGO_MANIFEST_DIR";

/// Password of an encrypted key file.
pub const PASSWORD: &str = "GAUNTLET_PASSWORD";
