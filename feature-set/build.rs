//! Does nothing; it is here so that the features of what build scripts and macros use count.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
