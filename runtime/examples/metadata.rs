//! Writes the runtime's metadata, in the version that subxt asks nodes for, to the file that is named.

fn main() {
    let path = std::env::args().nth(1).expect("usage: metadata FILE");
    let metadata = runtime::Runtime::metadata_at_version(16).expect("the runtime has this version");
    std::fs::write(path, &*metadata).expect("the file can be written");
}
