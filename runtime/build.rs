//! Builds this crate a second time for Wasm, for the blob that every chain specification starts from.
//!
//! `SKIP_WASM_BUILD=1` leaves the blob out; what needs it then says so at run time.

fn main() {
    #[cfg(feature = "std")]
    substrate_wasm_builder::WasmBuilder::build_using_defaults();
}
