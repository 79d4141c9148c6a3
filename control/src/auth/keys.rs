//! The endpoint's master key, and what is derived from it: role credentials of nodes, sealed secrets of operators.

use std::fmt;

/// 32 random bytes in `DIR/master.key`, mode 0600. Everything else that is secret is derived from or sealed with it.
pub(crate) struct MasterKey {
    _bytes: [u8; 32],
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}
