//! The files that a boot loader puts into memory beside the kernel.

use crate::phys::Region;

/// How many modules an L1 can be given.
pub const MAX_MODULES: usize = 64;

/// One file that the boot loader put into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleRef<'a> {
    /// Where it lies in physical memory.
    pub region: Region,
    /// The string that came with it, without the terminating NUL: what stood
    /// after the file name in the boot loader's configuration.
    pub string: &'a [u8],
}
