//! Builds the blob; `SKIP_WASM_BUILD=1` leaves it out, as for the runtime.

fn main() {
    #[cfg(feature = "std")]
    substrate_wasm_builder::WasmBuilder::build_using_defaults();
}
