//! How a communicator is to be made: `ncclConfig_t` as NCCL 2.17 declares it.
//!
//! Its first fields say how long it is and which version wrote it, so that newer libraries take it as it is and set
//! by themselves what it does not have.

use std::ffi::{c_char, c_int, c_uint};

/// `magic` of `NCCL_CONFIG_INITIALIZER`.
const MAGIC: c_uint = 0xCAFE_BEEF;

/// `NCCL_VERSION(2, 17, 0)`.
const VERSION: c_uint = 21_700;

/// `NCCL_CONFIG_UNDEF_INT`: as NCCL likes.
const UNDEFINED: c_int = c_int::MIN;

/// `ncclConfig_t`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
}

impl Config {
    /// Calls return at once; whether they have ended is to be asked.
    pub(super) fn not_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: MAGIC,
            version: VERSION,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_fields_are_where_nccl_has_them() {
        assert_eq!(size_of::<Config>(), 40);
        let offsets = [offset_of!(Config, magic), offset_of!(Config, blocking)];
        assert_eq!(offsets, [8, 16]);
        assert_eq!(offset_of!(Config, net_name), 32);
    }
}
